"""What each kind of prim looks like, as painted triangles in the prim's own space.

`meshes` is the entrance for everything that has a surface; `shapes` are the geometric primitives, `geometry` splits
polygons and computes normals, `subdivision` makes cages smooth. `strands` are curves and points, `cards` the stand-ins
of models. `primvars` has what they share. `deform` moves the points of meshes over time.
"""
