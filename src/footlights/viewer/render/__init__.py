"""From a scene to pictures, in a thread of its own.

`render_loop` is the thread: it opens the stage, applies input, draws one picture per frame period while there are
viewers, and lowers the quality when drawing is too slow. `renderer` owns all of panda3d, `studio` its lights and
backdrop, `textures` its pictures; `egl` finds the session's GPU. `detail` makes coarser copies of heavy scenes;
`camera` is the arithmetic of the orbit camera. Other threads only post input and read `StageProgress`.
"""
