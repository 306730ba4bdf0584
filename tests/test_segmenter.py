"""Segmenters: prompts, and what the embedded one finds in a rendered room and in odd pictures."""

from itertools import product

import numpy as np
import pytest
from PIL import Image

import sam3d_nb as s3
from sam3d_nb.errors import InputError
from sam3d_nb.masks.graphcut import cut_object, minimum_cut
from sam3d_nb.masks.merging import MergeRule, clusters, merge
from sam3d_nb.masks.mixture import fit_mixture
from sam3d_nb.masks.proposals import _within
from sam3d_nb.masks.regions import make_regions
from sam3d_nb.masks.segmenter import SEGMENTERS, Prompt
from sam3d_nb.masks.sharpen import enlarge


def iou(one, two):
    return np.count_nonzero(one & two) / np.count_nonzero(one | two)


def frame(mask):
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


@pytest.fixture(scope="module")
def room():
    """The left half of the study, at half its size: shelves, fan, briefcase."""
    example = s3.load_example("study")
    crop = (slice(None, None, 2), slice(0, 448, 2))
    masks = {example.names[i]: example.masks[i][crop] for i in example.masks}
    return np.ascontiguousarray(example.image[crop]), masks


@pytest.fixture(scope="module")
def embedded():
    return s3.load_segmenter()


def blocks():
    """Two rectangles on a plain floor: red (rows 20-60, columns 30-70), blue (70-110, 90-150)."""
    image = np.full((130, 180, 3), 200, np.uint8)
    red, blue = np.zeros((2, 130, 180), bool)
    red[20:60, 30:70] = True
    blue[70:110, 90:150] = True
    image[red], image[blue] = (200, 30, 30), (20, 40, 190)
    return image, red, blue


@pytest.mark.parametrize(
    "prompt",
    [
        Prompt(box=(25, 15, 75, 65)),
        Prompt(points=[(50, 40)]),
        Prompt(points=[(35, 25), (120, 90)], labels=[True, False]),
    ],
)
def test_a_prompt_on_a_red_block_gives_its_pixels(embedded, prompt):
    image, red, _ = blocks()
    best = embedded.masks(image, prompt)[0]
    assert best.mask.dtype == bool
    assert best.mask.shape == red.shape
    assert 0 <= best.score <= 1
    assert iou(best.mask, red) > 0.97


def test_a_scribble_gives_the_object_below_it(embedded):
    image, _, blue = blocks()
    scribble = np.zeros_like(blue)
    scribble[80:84, 100:140] = True
    assert iou(embedded.masks(image, Prompt(scribble=scribble))[0].mask, blue) > 0.97


def test_a_point_beside_the_object_takes_a_part_away(embedded):
    image, red, blue = blocks()
    both = Prompt(points=[(50, 40), (120, 90)])
    together = embedded.masks(image, both)
    assert together
    assert (together[0].mask & red).any()
    assert (together[0].mask & blue).any()
    only = Prompt(box=(20, 10, 160, 120), points=[(50, 40), (120, 90)], labels=[True, False])
    found = embedded.masks(image, only)[0].mask
    assert iou(found, red) > 0.95


def test_everything_finds_both_blocks(embedded):
    image, red, blue = blocks()
    found = embedded.everything(image)
    assert max(iou(segment.mask, red) for segment in found) > 0.95
    assert max(iou(segment.mask, blue) for segment in found) > 0.95
    assert [s.score for s in found] == sorted((s.score for s in found), reverse=True)


def test_boxes_in_a_rendered_room(embedded, room):
    image, masks = room
    found = {
        name: iou(embedded.masks(image, Prompt(box=frame(masks[name])))[0].mask, masks[name])
        for name in ("shelves", "table fan", "briefcase")
    }
    assert found["briefcase"] > 0.9
    assert np.mean(list(found.values())) > 0.75


def test_everything_in_a_rendered_room(embedded, room):
    image, masks = room
    found = embedded.everything(image)
    assert len(found) <= 25
    best = {
        name: max(iou(segment.mask, masks[name]) for segment in found)
        for name in ("shelves", "table fan", "briefcase")
    }
    assert sum(value >= 0.5 for value in best.values()) >= 2, best


def test_the_same_prompt_gives_the_same_mask_again(room):
    image, masks = room
    box = frame(masks["briefcase"])
    one, two = (s3.load_segmenter().masks(image, Prompt(box=box))[0] for _ in range(2))
    assert (one.mask == two.mask).all()
    assert one.score == two.score


def test_a_photo_is_looked_at_once(monkeypatch, room):
    image, masks = room
    looked = []
    import sam3d_nb.masks.embedded as module

    real = module.make_regions
    monkeypatch.setattr(module, "make_regions", lambda photo: looked.append(1) or real(photo))
    segmenter = s3.load_segmenter()
    segmenter.prepare(image)
    for name in ("briefcase", "table fan"):
        segmenter.masks(image, Prompt(box=frame(masks[name])))
    assert len(looked) == 1
    segmenter.masks(image.copy(), Prompt(box=(1, 1, 50, 50)))
    assert len(looked) == 2


def test_a_large_photo_gets_a_mask_of_its_own_size(embedded):
    image, red, _ = blocks()
    large, mask = (np.repeat(np.repeat(a, 8, axis=0), 8, axis=1) for a in (image, red))
    found = embedded.masks(large, Prompt(box=(220, 145, 580, 500)))[0].mask
    assert found.shape == large.shape[:2]
    assert iou(found, mask) > 0.97


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (3, 3), (20, 30)])
@pytest.mark.parametrize("kind", ["even", "noise"])
def test_odd_pictures_give_masks_or_nothing(embedded, shape, kind):
    random = np.random.default_rng(0)
    image = random.integers(0, 255, (*shape, 3)).astype(np.uint8)
    if kind == "even":
        image[:] = 77
    prompts = [Prompt(box=(0, 0, shape[1], shape[0])), Prompt(points=[(0.5, 0.5)])]
    for found in [embedded.everything(image), *(embedded.masks(image, p) for p in prompts)]:
        assert all(segment.mask.shape == shape and segment.mask.any() for segment in found)


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        (Prompt(), "empty"),
        (Prompt(points=[(3, 3)], labels=[False]), "empty"),
        (Prompt(text="a chair"), "knows no words"),
        (Prompt(points=[(3, 3)], labels=[True, False]), "labels"),
        (Prompt(points=[(np.nan, 3)]), "finite"),
        (Prompt(points=[3, 3]), "points"),
        (Prompt(points="here"), "points"),
        (Prompt(box=(1, 2, 3)), "box"),
        (Prompt(box=(500, 500, 600, 600)), "covers no pixel"),
        (Prompt(box=(5, 5, 5, 9)), "covers no pixel"),
        (Prompt(scribble=np.ones((3, 3), bool)), "scribble"),
    ],
)
def test_a_prompt_that_says_nothing_is_told(embedded, prompt, says):
    with pytest.raises(InputError, match=says):
        embedded.masks(blocks()[0], prompt)


@pytest.mark.parametrize(
    "photo", [np.zeros((4, 4)), np.zeros((4, 4, 3)), None, np.zeros((0, 4, 3))]
)
def test_what_is_no_photo_is_told(embedded, photo):
    for ask in (embedded.everything, embedded.prepare, lambda x: embedded.masks(x, Prompt())):
        with pytest.raises(InputError, match="a photo is"):
            ask(photo)


def test_corners_in_any_order_and_points_outside_are_moved_inside():
    prompt = Prompt(points=[(-5, 1e9)], box=(90, 80, -10, 20)).checked((60, 100))
    assert prompt.box == (0.0, 20.0, 90.0, 60.0)
    assert (prompt.points >= 0).all()
    assert prompt.points[0, 1] < 60


def test_unknown_segmenters_and_devices_are_told():
    with pytest.raises(InputError, match=r"no segmenter 'sam9'.*embedded"):
        s3.load_segmenter("sam9")
    with pytest.raises(InputError, match="no device 'tpu'"):
        s3.load_segmenter("embedded", "tpu")
    assert all(spec.description for spec in SEGMENTERS.values())


# --- Plain twins ------------------------------------------------------------------------------


def test_the_minimum_cut_is_the_best_of_all_labels():
    random = np.random.default_rng(3)
    for _ in range(20):
        gain = random.normal(size=7).round(2)
        ends = np.array([(i, j) for i in range(7) for j in range(i) if random.random() < 0.5])
        ends = ends.reshape(-1, 2)
        weight = random.random(len(ends)).round(2)

        def value(labels, gain=gain, ends=ends, weight=weight):
            labels = np.array(labels)
            return gain[labels].sum() - weight[labels[ends[:, 0]] != labels[ends[:, 1]]].sum()

        best = max(value(labels) for labels in product([False, True], repeat=7))
        assert value(minimum_cut(gain, ends, weight)) == pytest.approx(best)


def test_a_merge_tree_holds_every_region_once():
    regions = make_regions(blocks()[0])
    tree = merge(regions, MergeRule())
    assert sorted(tree.leaves) == list(range(regions.count))
    assert tree.total(regions.area)[-1] == regions.labels.size
    for node in range(tree.size, len(tree.parent)):
        parts = [set(tree.members(part)) for part in tree.parts[node]]
        assert set(tree.members(node)) == parts[0] | parts[1]
        assert not parts[0] & parts[1]
        assert tree.cost[node] >= tree.cost[tree.parts[node]].max()
    for count in (1, 2, 3):
        assert len(set(clusters(tree, count))) == min(count, tree.size)


def test_borders_within_a_node_are_those_between_its_regions(room):
    regions = make_regions(room[0][:120, :160].copy())
    tree = merge(regions, MergeRule(border=3), np.arange(regions.count) % 5 > 0)
    within = _within(regions, tree, regions.length)
    for node in range(0, len(tree.parent), 7):
        inner = np.isin(regions.pairs, tree.members(node)).all(axis=1)
        assert within[node] == pytest.approx(regions.length[inner].sum())


def test_regions_know_their_place_and_neighbors():
    regions = make_regions(blocks()[0])
    assert regions.area.sum() == regions.labels.size
    for region in range(regions.count):
        rows, columns = np.nonzero(regions.labels == region)
        assert regions.center[region] == pytest.approx([columns.mean() + 0.5, rows.mean() + 0.5])
        assert regions.bounds[region].tolist() == [
            columns.min(),
            rows.min(),
            columns.max() + 1,
            rows.max() + 1,
        ]
    steps = [
        (regions.labels[:-1], regions.labels[1:]),
        (regions.labels[:, :-1], regions.labels[:, 1:]),
    ]
    touching = {tuple(sorted(p)) for a, b in steps for p in zip(a[a != b], b[a != b], strict=True)}
    assert {tuple(pair) for pair in regions.pairs.tolist()} == touching


def test_a_mixture_is_a_density():
    random = np.random.default_rng(0)
    colors = np.concatenate([random.normal(0, 3, (300, 3)), random.normal(20, 3, (300, 3))])
    mixture = fit_mixture(colors, np.ones(600), 2)
    assert len(mixture.height) == 2
    sample = random.uniform(-30, 50, (200_000, 3))
    whole = np.exp(mixture.log_density(sample)).mean() * 80**3 / (2 * np.pi) ** 1.5
    assert whole == pytest.approx(1, rel=0.05)


def test_marked_regions_belong_where_the_person_says():
    image, red, blue = blocks()
    regions = make_regions(image)
    tree = merge(regions, MergeRule(border=3))
    marked = np.zeros(regions.count)
    marked[np.unique(regions.labels[red])] = -1
    marked[np.unique(regions.labels[blue])] = 1
    chosen = regions.paint(cut_object(regions, tree, (20, 10, 160, 120), marked))
    assert not chosen[red].any()
    assert chosen[blue].all()


@pytest.mark.parametrize("shape", [(90, 130), (211, 97), (40, 60), (300, 300)])
def test_enlarging_a_part_is_enlarging_the_whole(shape):
    probability = np.zeros((40, 60), np.float32)
    probability[5:30, 40:60] = np.random.default_rng(0).random((25, 20), np.float32)
    whole = Image.fromarray(probability).resize(shape[::-1], Image.Resampling.BILINEAR)
    found = enlarge(probability, shape)
    assert np.mean(found != (np.asarray(whole) > 0.5)) < 1e-3
    assert not enlarge(np.zeros_like(probability), shape).any()
