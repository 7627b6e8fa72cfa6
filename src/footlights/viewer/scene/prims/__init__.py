"""What each kind of prim looks like, as painted triangles in the prim's own space.

`meshes` is the entrance for everything that has a surface; `shapes` are the geometric primitives, `geometry` splits
polygons and computes normals. `deform` moves the points of meshes over time.
"""
