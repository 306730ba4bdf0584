"""Builds a `stage.Scene` in Blender and renders it: the photo and the exact geometry behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy
import numpy as np
import OpenEXR
import shaders
from furniture import Library, Material
from mathutils import Vector
from placing import Placed
from rooms import add_setting
from stage import Camera, Color, Lamp, Scene, Sun

SENSOR = 36.0  # millimetres


def default_kind(material: Material) -> str:
    """Return the kind of surface that fits a material's MTL entry."""
    return "matte" if material.specular < 0.08 else "satin"


def look_of(placed: Placed, material: Material) -> tuple[str, Color, str | None]:
    """Return kind of surface, linear color and texture of one of an item's materials.

    A look that brings its own color replaces the texture with it.
    """
    look = placed.item.looks.get(material.name) or placed.item.looks.get("*")
    if look is None:
        return default_kind(material), material.color, material.texture
    if look.color is None:
        return look.kind, material.color, material.texture
    return look.kind, look.color, None


class Builder:
    """One scene in a fresh Blender file."""

    def __init__(self, scene: Scene, placed: list[Placed], library: Library) -> None:
        bpy.ops.wm.read_factory_settings(use_empty=True)
        if bpy.app.online_access:
            raise RuntimeError("Blender's online access must be off")
        self.scene, self.library = scene, library
        self.images: dict[str, Any] = {}
        for number, entry in enumerate(placed, start=1):
            self._item(entry, number)
        add_setting(scene.setting)
        for lamp in scene.lamps:
            self._lamp(lamp)
        if scene.sun:
            self._sun(scene.sun)
        self._sky()
        self.camera = self._camera(scene.camera)

    def _item(self, placed: Placed, number: int) -> None:
        model = placed.model
        mesh = bpy.data.meshes.new(placed.item.name)
        mesh.from_pydata(model.vertices.tolist(), [], model.faces.tolist())
        for material in model.materials:
            kind, color, texture = look_of(placed, material)
            image = self._image(texture) if texture else None
            mesh.materials.append(shaders.make(material.name, kind, color, image))
        mesh.polygons.foreach_set("material_index", model.face_material.astype(np.int32))
        mesh.polygons.foreach_set("use_smooth", np.ones(len(model.faces), bool))
        layer = mesh.uv_layers.new(name="UVMap")
        layer.data.foreach_set("uv", model.uv[model.faces].reshape(-1).astype(np.float32))
        mesh.normals_split_custom_set_from_vertices(model.normals.tolist())
        thing = bpy.data.objects.new(placed.item.name, mesh)
        thing.pass_index = number
        thing.matrix_world = placed.matrix.T.tolist()  # Blender fills matrices by columns
        bpy.context.scene.collection.objects.link(thing)

    def _image(self, path: str) -> Any:
        if path not in self.images:
            pixels = np.asarray(self.library.image(path), dtype=np.float32)[::-1] / 255
            height, width = pixels.shape[:2]
            image = bpy.data.images.new(path, width, height)
            rgba = np.concatenate([pixels, np.ones((height, width, 1), np.float32)], axis=2)
            image.pixels.foreach_set(np.ascontiguousarray(rgba).reshape(-1))
            image.pack()
            self.images[path] = image
        return self.images[path]

    def _lamp(self, lamp: Lamp) -> None:
        data = bpy.data.lights.new("lamp", "AREA")
        data.shape, data.energy, data.color = "RECTANGLE", lamp.watts, lamp.color
        data.size, data.size_y = lamp.size
        thing = bpy.data.objects.new("lamp", data)
        thing.location = lamp.at
        aim = Vector(lamp.target) - Vector(lamp.at)
        thing.rotation_euler = aim.to_track_quat("-Z", "Y").to_euler()
        thing.visible_camera = False
        bpy.context.scene.collection.objects.link(thing)

    def _sun(self, sun: Sun) -> None:
        data = bpy.data.lights.new("sun", "SUN")
        data.energy, data.angle, data.color = sun.strength, np.radians(sun.angle), sun.color
        thing = bpy.data.objects.new("sun", data)
        thing.rotation_euler = Vector(sun.direction).to_track_quat("-Z", "Y").to_euler()
        bpy.context.scene.collection.objects.link(thing)

    def _sky(self) -> None:
        world = bpy.data.worlds.new("sky")
        world.use_nodes = True
        background = world.node_tree.nodes["Background"]
        background.inputs["Color"].default_value = (*self.scene.sky, 1.0)
        background.inputs["Strength"].default_value = self.scene.sky_strength
        bpy.context.scene.world = world

    def _camera(self, camera: Camera) -> Any:
        data = bpy.data.cameras.new("camera")
        data.sensor_fit, data.sensor_width, data.lens = "HORIZONTAL", SENSOR, camera.lens
        data.clip_start, data.clip_end = 0.01, 200.0
        thing = bpy.data.objects.new("camera", data)
        thing.location = camera.eye
        aim = Vector(camera.target) - Vector(camera.eye)
        thing.rotation_euler = aim.to_track_quat("-Z", "Y").to_euler()
        bpy.context.scene.collection.objects.link(thing)
        bpy.context.scene.camera = thing
        bpy.context.view_layer.update()
        return thing

    def camera_from_world(self) -> np.ndarray:
        """Return the matrix (4, 4) from the world to the OpenCV camera frame."""
        return np.diag([1.0, -1, -1, 1]) @ np.linalg.inv(np.array(self.camera.matrix_world))

    def intrinsics(self, width: int, height: int) -> np.ndarray:
        """Return K (3, 3) in pixels; pixel (u, v) has its center at (u + 0.5, v + 0.5)."""
        focal = width * self.scene.camera.lens / SENSOR
        return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])

    def photo(self, path: Path, width: int, height: int, samples: int) -> None:
        """Render the picture, denoised, through the AgX view transform, as 8-bit sRGB PNG."""
        settings = self._settings(width, height, samples)
        settings.cycles.use_denoising = True
        settings.cycles.denoiser = "OPENIMAGEDENOISE"
        settings.cycles.denoising_prefilter = "ACCURATE"
        settings.cycles.pixel_filter_type = "BLACKMAN_HARRIS"
        settings.cycles.filter_width = 1.5
        settings.view_settings.view_transform = "AgX"
        settings.view_settings.look = "AgX - Medium High Contrast"
        settings.view_settings.exposure = self.scene.exposure
        image = settings.render.image_settings
        image.file_format, image.color_mode, image.color_depth = "PNG", "RGB", "8"
        settings.render.filepath = str(path)
        bpy.ops.render.render(write_still=True)

    def geometry(self, path: Path, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
        """Return what every pixel's center sees: item number (H, W) int, 0 for the setting, and
        the world position (H, W, 3), NaN where there is only sky. One ray a pixel."""
        settings = self._settings(width, height, 1)
        settings.cycles.use_denoising = False
        settings.cycles.pixel_filter_type = "BOX"
        settings.cycles.filter_width = 0.01
        layer = bpy.context.view_layer
        layer.use_pass_z = layer.use_pass_position = layer.use_pass_object_index = True
        image = settings.render.image_settings
        image.file_format, image.color_depth = "OPEN_EXR_MULTILAYER", "32"
        settings.render.filepath = str(path)
        bpy.ops.render.render(write_still=True)
        layer.use_pass_z = layer.use_pass_position = layer.use_pass_object_index = False
        with OpenEXR.File(str(path), separate_channels=True) as file:
            channels = file.parts[0].channels
            read = {name.split(".", 1)[1]: c.pixels for name, c in channels.items() if "." in name}
        position = np.stack([read[f"Position.{a}"] for a in "XYZ"], axis=-1).astype(np.float64)
        position[read["Depth.Z"] > 1e6] = np.nan
        return np.rint(read["IndexOB.X"]).astype(int), position

    def _settings(self, width: int, height: int, samples: int) -> Any:
        settings = bpy.context.scene
        settings.render.engine = "CYCLES"
        settings.render.resolution_x, settings.render.resolution_y = width, height
        settings.render.resolution_percentage = 100
        settings.render.threads_mode, settings.render.threads = "FIXED", 2
        cycles = settings.cycles
        cycles.device, cycles.samples, cycles.seed = "CPU", samples, 0
        cycles.use_adaptive_sampling = False
        cycles.max_bounces, cycles.diffuse_bounces = 8, 6
        cycles.sample_clamp_indirect = 8.0
        cycles.caustics_reflective = cycles.caustics_refractive = False
        return settings
