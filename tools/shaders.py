"""Blender materials: one function for each kind of surface, chosen by name in `stage.Look`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import bpy
from stage import Color


class Nodes:
    """A material's node tree with a principled shader, and short ways to add to it."""

    def __init__(self, name: str) -> None:
        self.material = bpy.data.materials.new(name)
        self.material.use_nodes = True
        self.tree = self.material.node_tree
        self.shader = self.tree.nodes["Principled BSDF"]
        self.output = self.tree.nodes["Material Output"]
        self.base: Any = None  # socket of the base color, None while it is a constant

    def add(self, kind: str, **inputs: Any) -> Any:
        """Add a node; `inputs` are values or sockets by name, underscores for spaces."""
        node = self.tree.nodes.new(kind)
        for name, value in inputs.items():
            self.set(node, name.replace("_", " "), value)
        return node

    def set(self, node: Any, name: str, value: Any) -> None:
        """Give an input a value, or link a socket to it."""
        socket = node.inputs[name]
        if isinstance(value, bpy.types.NodeSocket):
            self.tree.links.new(value, socket)
        else:
            socket.default_value = (*value, 1.0) if isinstance(value, tuple) else value

    def surface(self, **inputs: Any) -> None:
        """Set inputs of the principled shader."""
        for name, value in inputs.items():
            self.set(self.shader, name.replace("_", " "), value)

    def coordinates(self, stretch: Color = (1.0, 1.0, 1.0), kind: str = "Object") -> Any:
        """Return the position on the object, in metres, stretched along its axes."""
        source = self.add("ShaderNodeTexCoord").outputs[kind]
        mapping = self.add("ShaderNodeMapping")
        self.tree.links.new(source, mapping.inputs["Vector"])
        mapping.inputs["Scale"].default_value = stretch
        return mapping.outputs["Vector"]

    def noise(self, vector: Any, scale: float, detail: float = 4.0, rough: float = 0.5) -> Any:
        """Return fractal noise around 0.5; scale: per metre."""
        node = self.add("ShaderNodeTexNoise", Vector=vector, Scale=scale, Detail=detail)
        node.inputs["Roughness"].default_value = rough
        return node.outputs["Fac"]

    def ramp(self, factor: Any, low: float, high: float) -> Any:
        """Map factor 0.3 ... 0.7 (where noise lives) to low ... high."""
        node = self.add("ShaderNodeMapRange", Value=factor)
        for name, value in (
            ("From Min", 0.3),
            ("From Max", 0.7),
            ("To Min", low),
            ("To Max", high),
        ):
            node.inputs[name].default_value = value
        return node.outputs["Result"]

    def mix(self, factor: Any, a: Any, b: Any, blend: str = "MIX") -> Any:
        """Return color `a` blended with `b` by `factor`."""
        node = self.tree.nodes.new("ShaderNodeMix")
        node.data_type, node.blend_type = "RGBA", blend
        for socket, value in ((0, factor), (6, a), (7, b)):
            if isinstance(value, bpy.types.NodeSocket):
                self.tree.links.new(value, node.inputs[socket])
            else:
                filled = (*value, 1.0) if isinstance(value, tuple) else value
                node.inputs[socket].default_value = filled
        return node.outputs[2]

    def vary(self, color: Color, factor: Any, amount: float) -> None:
        """Make the base color brighter and darker by `amount` along `factor`; keeps a texture."""
        base = self.base if self.base is not None else color
        shade = self.ramp(factor, 1 - amount, 1 + amount)
        gray = self.tree.nodes.new("ShaderNodeCombineColor")
        for channel in ("Red", "Green", "Blue"):
            self.tree.links.new(shade, gray.inputs[channel])
        self.base = self.mix(1.0, base, gray.outputs["Color"], "MULTIPLY")
        self.surface(Base_Color=self.base)

    def bump(self, height: Any, distance: float, strength: float = 1.0) -> None:
        """Raise the surface by up to `distance` metres along `height`; adds to earlier bumps."""
        node = self.add("ShaderNodeBump", Height=height, Strength=strength, Distance=distance)
        if self.shader.inputs["Normal"].is_linked:
            below = self.shader.inputs["Normal"].links[0].from_socket
            self.tree.links.new(below, node.inputs["Normal"])
        self.tree.links.new(node.outputs["Normal"], self.shader.inputs["Normal"])


def matte(nodes: Nodes, color: Color) -> None:
    nodes.surface(Roughness=0.85, Specular_IOR_Level=0.2)


def satin(nodes: Nodes, color: Color) -> None:
    nodes.surface(Roughness=0.45, Specular_IOR_Level=0.4)


def gloss(nodes: Nodes, color: Color) -> None:
    nodes.surface(Roughness=0.18, Specular_IOR_Level=0.5, Coat_Weight=0.3, Coat_Roughness=0.08)


def metal(nodes: Nodes, color: Color) -> None:
    nodes.surface(Metallic=1.0, Roughness=0.28)


def brushed(nodes: Nodes, color: Color) -> None:
    grain = nodes.noise(nodes.coordinates((4.0, 4.0, 400.0)), 1.0)
    nodes.surface(Metallic=1.0, Roughness=nodes.ramp(grain, 0.3, 0.5))


def leather(nodes: Nodes, color: Color) -> None:
    where = nodes.coordinates()
    nodes.vary(color, nodes.noise(where, 9.0, 6.0), 0.22)
    cells = nodes.add("ShaderNodeTexVoronoi", Vector=where, Scale=260.0)
    nodes.bump(cells.outputs["Distance"], 0.0006, 0.5)
    nodes.bump(nodes.noise(where, 14.0, 5.0), 0.01, 0.25)
    nodes.surface(Roughness=0.42, Specular_IOR_Level=0.45)


def fabric(nodes: Nodes, color: Color) -> None:
    where = nodes.coordinates()
    nodes.vary(color, nodes.noise(where, 220.0, 3.0), 0.18)
    nodes.vary(color, nodes.noise(where, 6.0, 4.0), 0.07)
    nodes.bump(nodes.noise(where, 380.0, 2.0), 0.0018, 0.55)
    nodes.bump(nodes.noise(where, 9.0, 3.0), 0.012, 0.3)
    nodes.surface(Roughness=0.95, Specular_IOR_Level=0.15, Sheen_Weight=0.3)


def plush(nodes: Nodes, color: Color) -> None:
    where = nodes.coordinates()
    nodes.vary(color, nodes.noise(where, 420.0, 4.0), 0.25)
    nodes.bump(nodes.noise(where, 520.0, 4.0), 0.002, 0.8)
    nodes.surface(Roughness=1.0, Specular_IOR_Level=0.1, Sheen_Weight=0.6)


def wood(nodes: Nodes, color: Color) -> None:
    along = nodes.coordinates((2.0, 28.0, 28.0))
    grain = nodes.noise(along, 1.6, 8.0, 0.6)
    nodes.vary(color, grain, 0.3)
    nodes.bump(grain, 0.001, 0.3)
    nodes.surface(Roughness=nodes.ramp(grain, 0.5, 0.36), Specular_IOR_Level=0.4)


def ceramic(nodes: Nodes, color: Color) -> None:
    nodes.surface(Roughness=0.12, Specular_IOR_Level=0.5, Subsurface_Weight=0.0)


def clay(nodes: Nodes, color: Color) -> None:
    where = nodes.coordinates()
    nodes.vary(color, nodes.noise(where, 40.0, 8.0), 0.15)
    nodes.bump(nodes.noise(where, 160.0, 6.0), 0.002, 0.4)
    nodes.surface(Roughness=0.9, Specular_IOR_Level=0.2)


def leaf(nodes: Nodes, color: Color) -> None:
    where = nodes.coordinates()
    nodes.vary(color, nodes.noise(where, 7.0, 5.0), 0.35)
    nodes.surface(Roughness=0.42, Specular_IOR_Level=0.4)
    light = nodes.add("ShaderNodeBsdfTranslucent")
    nodes.set(light, "Color", nodes.base)
    both = nodes.add("ShaderNodeMixShader")
    both.inputs["Fac"].default_value = 0.25
    nodes.tree.links.new(nodes.shader.outputs["BSDF"], both.inputs[1])
    nodes.tree.links.new(light.outputs["BSDF"], both.inputs[2])
    nodes.tree.links.new(both.outputs["Shader"], nodes.output.inputs["Surface"])


def shade(nodes: Nodes, color: Color) -> None:
    """A lamp shade that glows."""
    nodes.surface(Roughness=0.8, Emission_Color=(1.0, 0.74, 0.45), Emission_Strength=2.2)


KINDS: dict[str, Callable[[Nodes, Color], None]] = {
    f.__name__: f
    for f in (
        matte,
        satin,
        gloss,
        metal,
        brushed,
        leather,
        fabric,
        plush,
        wood,
        ceramic,
        clay,
        leaf,
        shade,
    )
}


def make(name: str, kind: str, color: Color, image: Any = None) -> Any:
    """Return a Blender material of a kind; `image`: a packed texture that replaces the color."""
    nodes = Nodes(name)
    nodes.surface(Base_Color=color)
    if image is not None:
        texture = nodes.add("ShaderNodeTexImage")
        texture.image = image
        nodes.base = texture.outputs["Color"]
        nodes.surface(Base_Color=nodes.base)
    KINDS[kind](nodes, color)
    return nodes.material


def planks(name: str, light: Color, dark: Color) -> Any:
    """Return an oak floor: boards of 2 m by 16 cm, staggered, each with its own shade and grain."""
    nodes = Nodes(name)
    where = nodes.coordinates(kind="Object")
    boards = nodes.add("ShaderNodeTexBrick", Vector=where, Scale=1.0)
    boards.offset, boards.offset_frequency = 0.37, 2
    for socket, value in (
        ("Color1", (0.35, 0.35, 0.35, 1)),
        ("Color2", (0.65, 0.65, 0.65, 1)),
        ("Mortar", (0.5, 0.5, 0.5, 1)),
        ("Mortar Size", 0.0012),
        ("Mortar Smooth", 0.3),
        ("Brick Width", 2.0),
        ("Row Height", 0.16),
    ):
        boards.inputs[socket].default_value = value
    shift = nodes.add("ShaderNodeVectorMath", Vector=where)
    shift.operation = "ADD"
    nodes.tree.links.new(boards.outputs["Color"], shift.inputs[1])
    stretched = nodes.add("ShaderNodeMapping", Vector=shift.outputs["Vector"])
    stretched.inputs["Scale"].default_value = (1.3, 18.0, 4.0)
    grain = nodes.noise(stretched.outputs["Vector"], 1.8, 9.0, 0.62)
    base = nodes.mix(nodes.ramp(grain, 0.0, 1.0), light, dark)
    nodes.base = base
    nodes.vary(light, boards.outputs["Color"], 0.2)
    seams = nodes.mix(boards.outputs["Fac"], nodes.base, (0.03, 0.018, 0.01))
    nodes.surface(Base_Color=seams, Specular_IOR_Level=0.4)
    nodes.surface(Roughness=nodes.ramp(grain, 0.36, 0.5))
    nodes.bump(grain, 0.0006, 0.35)
    inverted = nodes.add("ShaderNodeMath")
    inverted.operation = "SUBTRACT"
    inverted.inputs[0].default_value = 1.0
    nodes.tree.links.new(boards.outputs["Fac"], inverted.inputs[1])
    nodes.bump(inverted.outputs["Value"], 0.002, 0.6)
    return nodes.material


def carpet(name: str, color: Color) -> Any:
    """Return a short-pile carpet."""
    nodes = Nodes(name)
    where = nodes.coordinates()
    nodes.vary(color, nodes.noise(where, 180.0, 5.0), 0.35)
    nodes.vary(color, nodes.noise(where, 2.5, 4.0), 0.12)
    nodes.bump(nodes.noise(where, 240.0, 5.0), 0.006, 0.8)
    nodes.surface(Roughness=1.0, Specular_IOR_Level=0.05, Sheen_Weight=0.4)
    return nodes.material


def tiles(name: str, color: Color) -> Any:
    """Return floor tiles of 45 cm."""
    nodes = Nodes(name)
    where = nodes.coordinates()
    grid = nodes.add("ShaderNodeTexBrick", Vector=where, Scale=1.0)
    grid.offset = 0.0
    for socket, value in (
        ("Color1", (0.45, 0.45, 0.45, 1)),
        ("Color2", (0.55, 0.55, 0.55, 1)),
        ("Mortar", (0.5, 0.5, 0.5, 1)),
        ("Mortar Size", 0.003),
        ("Mortar Smooth", 0.2),
        ("Brick Width", 0.45),
        ("Row Height", 0.45),
    ):
        grid.inputs[socket].default_value = value
    nodes.vary(color, nodes.noise(where, 3.0, 8.0, 0.65), 0.16)
    nodes.vary(color, grid.outputs["Color"], 0.12)
    grout = nodes.mix(grid.outputs["Fac"], nodes.base, (0.3, 0.28, 0.26))
    nodes.surface(Base_Color=grout, Roughness=0.32, Specular_IOR_Level=0.45)
    return nodes.material


def plaster(name: str, color: Color) -> Any:
    """Return a painted wall with a faint roller texture."""
    nodes = Nodes(name)
    where = nodes.coordinates()
    nodes.vary(color, nodes.noise(where, 1.2, 3.0), 0.03)
    nodes.bump(nodes.noise(where, 220.0, 4.0), 0.0008, 0.35)
    nodes.surface(Roughness=0.9, Specular_IOR_Level=0.2)
    return nodes.material
