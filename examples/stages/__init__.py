"""The scripts that model the viewer's sample stages.

`python -m examples.stages.build [NAME ...]`, or `make stages`, writes the `.usdc` files that the viewer ships
(`src/footlights/viewer/stages/`). Each stage is a module of its own (`orrery`, `robot_cell`, `theatre`) with one
function, `build`. It composes solids (`modelling`), which `writing` bakes (ambient occlusion, animation) and saves with
usd-core. Nothing at run time imports any of it.
"""
