"""USD materials, reduced to what a rasteriser with per-vertex lighting can show.

`network` follows an input of a shader to what gives it its value: a constant, a primvar or a picture; it knows the
nodes of UsdPreviewSurface and of MaterialX. `surfaces` is the table of surface shaders (UsdPreviewSurface, MaterialX's
Standard Surface, OpenPBR and glTF, MDL's OmniPBR and its relatives) and the names that each gives to the same few
things; `materialx` makes layers of `.mtlx` documents. `paint` is the result, in plain values, which `palette` keeps.

An approximation: roughness and metalness are one number a surface (the mean of their picture), a normal map is shaded
into the colour, and of a graph that computes a colour the first picture is taken.
"""
