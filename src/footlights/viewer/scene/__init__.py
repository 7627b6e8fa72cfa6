"""From a USD stage to plain arrays: everything above panda3d and below the network.

`fetch` finds or downloads the stage; `stage` walks it once and returns a `scene.Scene`: joints (prims that move) and
batches of triangles, each attached to one joint. `prims` and `materials` turn prims and what they are made of into
those arrays; `lights` and `cameras` are what their names say. What a stage has and the viewer does not show as authored
is counted (`left_out`); only a stage without anything to draw is a failure.
"""
