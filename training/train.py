"""Train `tiny`, or go on training it: `python -m training.train --help`.

Stages, in the order in which they need each other: `vae` (sparse structure), `moge` (point map),
`flow` (stage 1 and its condition embedder), `latent` (stage 2), `mesh`, `splat`. Each writes one
file of float16 weights, the average over its steps; a later run begins with what it finds in
`--init`. Optimizers begin anew: a warm-up of some hundred steps costs less than carrying them.
"""

from __future__ import annotations

import argparse
import json
import traceback
from collections.abc import Iterable
from copy import deepcopy
from functools import partial
from pathlib import Path
from time import perf_counter

import torch
from torch import nn

from sam3d_nb.model.structure_blocks import StructureBlock
from sam3d_nb.model.vision import Block
from training import parallel, stages
from training.check import check_depth, check_structure
from training.data.fields import furniture
from training.data.objects import Objects, merge
from training.data.pool import build_pool
from training.data.scenes import ANY_FIELD_OF_VIEW, FIELD_OF_VIEW
from training.data.shapes import HELD_OUT_SEEDS, procedural
from training.depth import moge
from training.estimates import estimate
from training.loop import Schedule, train
from training.networks import backbones, begin_backbone, build, load, save, share_vision
from training.samples import Samples
from training.targets import layouts, view_cubes

MODULES = {
    "vae": ("structure_encoder", "structure_decoder"),
    "flow": ("condition_stage1", "structure_flow"),
    "latent": ("condition_stage2", "latent_flow"),
    "mesh": ("mesh_decoder",),
    "splat": ("splat_decoder", "splat_decoder_4"),
    "moge": ("moge",),
}
SEEING = ("flow", "latent")  # stages that see point maps
LEAST_USABLE = 0.5  # share of the objects that the depth network sees anything of
BATCH = {"vae": 32, "flow": 128, "latent": 32, "mesh": 8, "splat": 16, "moge": 96}
COMPILED = ("flow", "latent", "moge")
REPLAYED = ("flow", "moge")  # sizes are the same in every step
VARYING = ("latent", "mesh", "splat")  # the number of voxels: cuDNN would plan each step anew
SHARED = (".backbone.",)  # in names of tensors that stage 2 takes from stage 1
OVERHEAD = 12.0  # seconds of a stage besides its training
RATE = {"vae": 2e-3, "flow": 8e-4, "latent": 8e-4, "mesh": 1.5e-3, "splat": 1.5e-3, "moge": 1e-3}


class Trainer:
    """Networks, data and files of one run."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.device = torch.device(options.device)
        self.networks: dict[str, nn.Module] = {}
        self.log: list[str] = []

    def write_log(self) -> None:
        """Write the options and all lines so far."""
        if parallel.rank():
            return
        self.options.out.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(_plain(self.options)), *self.log]
        (self.options.out / "log.txt").write_text("\n".join(lines) + "\n")

    def say(self, text: str) -> None:
        """Print and remember a line of the log."""
        if not parallel.rank():
            print(text, flush=True)
        self.log.append(text)

    def prepare(self) -> None:
        """Make objects, pool and targets; those of other processes are others."""
        o, started = self.options, perf_counter()
        seed = o.seed + parallel.rank() * max(o.procedural, 1)
        torch.manual_seed(seed)
        parts = [procedural(range(seed, seed + o.procedural), self.device, o.grid)]
        if o.furniture.is_file():
            parts += [furniture(o.furniture, self.device, o.grid, limit=o.models)] * o.repeats
        objects = merge(parts)
        self.say(f"{len(objects)} objects in {perf_counter() - started:.0f} s")
        started = perf_counter()
        self.samples = self.rendered(objects, o.pool, seed, ANY_FIELD_OF_VIEW)
        held = f"; {torch.cuda.memory_allocated() / 2**30:.0f} GiB" if o.device == "cuda" else ""
        self.say(f"{len(self.samples)} samples in {perf_counter() - started:.0f} s{held}")

    def rendered(
        self,
        objects: Objects,
        count: int,
        seed: int,
        field_of_view: tuple[float, float] = FIELD_OF_VIEW,
    ) -> Samples:
        """Render a pool of photos and measure its targets."""
        pool = build_pool(objects, count, seed, self.device, field_of_view=field_of_view)
        views = view_cubes(pool, objects)
        return Samples(pool, objects, views, layouts(pool, views))

    def estimate(self, samples: Samples, share: float) -> float:
        """Let a share of the samples have the point maps that the depth network gives.

        Returns the part of the objects, 0 to 1, of which that network sees anything.
        """
        started = perf_counter()
        network = self.network("moge").eval()
        samples.use(estimate(network, samples.pool, samples.views), share)
        usable = float(samples.estimates.usable.float().mean())
        self.say(f"point maps in {perf_counter() - started:.0f} s, {usable:.4f} usable")
        return usable

    def network(self, name: str) -> nn.Module:
        """Return a network, with weights of an earlier run where there are any."""
        if name not in self.networks:
            self.networks[name] = build(name, self.device)
            for folder in (self.options.out, self.options.init):
                path = folder / file_of(name) if folder else None
                if path and path.is_file():
                    load(path, {name: self.networks[name]}, partial=True)
                    self.say(f"{name}: begins with {path.name}")
                    break
        return self.networks[name]

    def run(self, stage: str, minutes: float) -> None:
        """Train one stage and write its file."""
        modules = {name: self.network(name) for name in MODULES[stage]}
        batch = self.options.batch or BATCH[stage]
        schedule = Schedule(minutes, RATE[stage] * self.options.rate)
        frozen = ()
        if stage in SEEING and self.options.estimated and self.samples.estimates is None:
            usable = self.estimate(self.samples, self.options.estimated)
            if usable < LEAST_USABLE:
                raise ValueError(
                    f"the depth network sees {usable:.0%} of the objects; train moge before, begin "
                    "with a folder that has it (--init), or do without its point maps "
                    "(--estimated 0)"
                )
        if stage == "moge" and self.options.photo_backbone:
            begin_backbone(modules["moge"], self.network("condition_stage1"))
        if stage == "flow" and self.options.freeze_vision:
            frozen = tuple(backbones(modules["condition_stage1"]))
        if stage == "latent":
            first = self.network("condition_stage1")
            share_vision(first, modules["condition_stage2"])
            frozen = tuple(backbones(first))
        for module in frozen:
            module.requires_grad_(False)
        makers = {
            "vae": lambda: stages.structure_vae(*modules.values(), self.samples, batch),
            "flow": lambda: stages.structure_flow(
                *modules.values(), self.shapes(), self.samples, batch
            ),
            "latent": lambda: stages.latent_flow(*modules.values(), self.samples, batch),
            "mesh": lambda: stages.mesh_decoder(*modules.values(), self.samples, batch),
            "splat": lambda: stages.both(
                [stages.splat_decoder(m, self.samples, batch) for m in modules.values()]
            ),
            "moge": lambda: moge(*modules.values(), self.samples, batch),
        }
        losses = makers[stage]()
        if stage in COMPILED and self.device.type == "cuda":
            compile_blocks(modules.values())
        torch.backends.cuda.enable_cudnn_sdp(stage not in VARYING)
        write = partial(self.write, stage, modules)
        self.log += train(
            stage, modules, losses, schedule, batch, frozen, write, replayed=stage in REPLAYED
        )
        if stage == "vae":
            self.say(f"latent scaled by {normalize(*modules.values(), self.samples):.3f}")
            parallel.same_start(modules.values())  # the samples of other processes are others
        if not parallel.rank():
            save_files(self.options.out, modules)

    def write(self, stage: str, modules: dict[str, nn.Module]) -> None:
        """Write what an unfinished stage has, as it would be at its end."""
        if stage == "vae":
            modules = deepcopy(modules)  # those that train keep their scale
            normalize(*modules.values(), self.samples)
        save_files(self.options.out, modules)

    def shapes(self) -> torch.Tensor:
        """Return the shape latents of the pool."""
        started = perf_counter()
        found = stages.encode_pool(self.network("structure_encoder"), self.samples)
        self.say(
            f"shape latents in {perf_counter() - started:.0f} s, std {found.float().std():.2f}"
        )
        return found

    def check(self) -> None:
        """Measure stage 1 on objects that training does not see."""
        o = self.options
        seeds = HELD_OUT_SEEDS[: o.held_out]
        objects = procedural(seeds, self.device, o.grid, held_out=True)
        samples = self.rendered(objects, o.check, o.seed + 1)
        usable = self.estimate(samples, 1.0)
        ways = (False, True)
        if usable < LEAST_USABLE:
            self.say(f"the depth network sees {usable:.0%} of the objects, too few to be measured")
            ways = (False,)
        names = ("condition_stage1", "structure_flow", "structure_decoder")
        networks = [self.network(name) for name in names]
        lines = [check_depth(self.network("moge"), samples)]
        for estimated in ways:
            lines += check_structure(*networks, samples, estimated=estimated)
        for line in lines:
            self.say(line)


def compile_blocks(modules: Iterable[nn.Module]) -> None:
    """Compile the dense transformer blocks; what does not compile runs as it is."""
    torch._dynamo.config.suppress_errors = True
    torch._dynamo.config.recompile_limit = 64  # one code for all blocks, whose sizes differ
    for module in modules:
        for part in module.modules():
            if isinstance(part, StructureBlock | Block):
                part.compile(dynamic=False)


@torch.no_grad()
def normalize(encoder: nn.Module, decoder: nn.Module, samples: Samples) -> float:
    """Give the shape latent deviation 1; the decoder's first layer undoes it. Return the factor."""
    some = torch.arange(min(1024, len(samples)), device=samples.views.side.device)
    factor = 1 / float(stages.encode_pool(encoder, samples, rows=some).float().std())
    half = encoder.out_layer.out_channels // 2
    encoder.out_layer.weight[:half] *= factor
    encoder.out_layer.bias[:half] *= factor
    decoder.input_layer.weight /= factor
    return factor


def file_of(name: str) -> str:
    """Return the file of a network: one a stage, but one a network for the largest."""
    stage = next(stage for stage, names in MODULES.items() if name in names)
    return f"{name if stage == 'flow' else stage}.safetensors"


def save_files(folder: Path, networks: dict[str, nn.Module]) -> None:
    """Write networks into their files; stage 2 without what it takes from stage 1."""
    for file in dict.fromkeys(map(file_of, networks)):
        held = {name: network for name, network in networks.items() if file_of(name) == file}
        save(folder / file, held, SHARED if file == file_of("latent_flow") else ())


def main() -> None:
    """Run the stages that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stages", nargs="+", help="such as vae=1.5 flow=6: minutes of each stage")
    parser.add_argument("--out", type=Path, required=True, help="folder of the new weights")
    parser.add_argument("--init", type=Path, help="folder of weights to begin with")
    parser.add_argument("--procedural", type=int, default=6000, help="procedural objects")
    parser.add_argument("--furniture", type=Path, default=Path(".carry/furniture.npz"))
    parser.add_argument("--models", type=int, help="most models of the furniture (default: all)")
    parser.add_argument("--repeats", type=int, default=3, help="weight of a furniture model")
    parser.add_argument("--grid", type=int, default=96, help="nodes a side of the fields")
    parser.add_argument("--pool", type=int, default=120_000, help="rendered samples")
    parser.add_argument("--batch", type=int, help="samples of a step")
    parser.add_argument("--rate", type=float, default=1.0, help="times the learning rates")
    parser.add_argument("--check", type=int, default=512, help="samples of the check; 0: none")
    parser.add_argument("--held-out", type=int, default=128, help="objects of the check")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--estimated", type=float, default=0.5, help="share of point maps by the depth network"
    )
    parser.add_argument("--freeze_vision", action="store_true", help="in stage 1; stage 2 always")
    parser.add_argument(
        "--photo_backbone", action="store_true", help="moge begins with the vision of stage 1"
    )
    parser.add_argument("--deadline", type=float, default=1e9, help="seconds; stages shrink to fit")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    parallel.start()
    torch.set_float32_matmul_precision("high")
    plan = {}
    for part in options.stages:
        stage, _, minutes = part.partition("=")
        if stage not in MODULES:
            parser.error(f"there is no stage {stage!r}; choose from {', '.join(MODULES)}")
        plan[stage] = float(minutes)
    started = perf_counter()
    trainer = Trainer(options)
    trainer.prepare()
    for number, stage in enumerate(plan):
        left = options.deadline - (perf_counter() - started) - OVERHEAD * (len(plan) - number)
        wanted = 60 * sum(list(plan.values())[number:])
        try:
            trainer.run(stage, plan[stage] * max(0.05, min(1.0, left / wanted)))
        except Exception:  # the other stages do not need this one's time or weights to be lost
            trainer.say(f"{stage} failed:\n{traceback.format_exc()}")
            if parallel.processes() > 1:  # the others wait for this one in the middle of a step
                trainer.write_log()
                raise
        trainer.write_log()
    if options.check and not parallel.rank():
        trainer.check()
    trainer.write_log()
    parallel.stop()


def _plain(options: argparse.Namespace) -> dict[str, str]:
    return {key: str(value) for key, value in vars(options).items()}


if __name__ == "__main__":
    main()
