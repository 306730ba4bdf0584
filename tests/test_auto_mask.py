"""Scenes without given masks: what is found, what is dropped, from photo to files."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import sam3d_nb as s3
from sam3d_nb.cli import main
from sam3d_nb.errors import InputError, OutputError, ReconstructionError, WeightsError
from sam3d_nb.masks import find as finding
from sam3d_nb.masks.filters import clean, count_nested
from sam3d_nb.masks.find import find_objects, with_masks
from sam3d_nb.masks.segmenter import Segment, Segmenter


def block(rows, columns, score=0.5, shape=(80, 120)):
    mask = np.zeros(shape, bool)
    mask[slice(*rows), slice(*columns)] = True
    return Segment(mask, score)


class Told(Segmenter):
    """A segmenter by words that finds what it is told to; keeps what it was asked."""

    name = "sam3"
    threshold = mask_threshold = 0.4

    def __init__(self, segments):
        self.segments = segments
        self.asked = []

    def masks(self, image, prompt, *, threshold=None, mask_threshold=None):
        self.asked.append((prompt.text, threshold, mask_threshold))
        return [segment for segment in self.segments if segment.score > threshold]

    def everything(self, image, pointmap=None):
        raise AssertionError("a segmenter that knows words is asked by words")


@pytest.fixture
def folder(tmp_path):
    """A photo with two blocks on a plain floor, and no masks."""
    image = np.full((130, 180, 3), 200, np.uint8)
    image[20:60, 30:70], image[70:110, 90:150] = (200, 30, 30), (20, 40, 190)
    place = tmp_path / "blocks"
    place.mkdir()
    Image.fromarray(image).save(place / "image.png")
    return place


@pytest.fixture
def no_sam3(monkeypatch, tmp_path):
    monkeypatch.setenv("SAM3D_NB_WEIGHTS", str(tmp_path / "no weights"))


def test_near_duplicates_slivers_and_background_are_dropped_and_named():
    best, twin = block((10, 40), (10, 50), 0.9), block((10, 40), (10, 48), 0.7)
    other = block((10, 40), (30, 70), 0.6)
    thin = block((50, 52), (5, 110), 0.95)
    tiny = block((60, 62), (60, 62), 0.95)
    wall = block((0, 80), (0, 119), 0.95)
    corner = block((0, 30), (80, 120), 0.3)
    kept, dropped = clean([twin, other, thin, best, tiny, wall, corner])
    assert kept == [best, other, corner]
    reasons = {id(one.segment): one.reason for one in dropped}
    assert reasons[id(twin)] == "near-duplicate of mask 0 (IoU 0.95)"
    assert reasons[id(thin)].startswith("sliver, at most 2 pixels")
    assert reasons[id(tiny)] == "sliver of 4 pixels"
    assert reasons[id(wall)] == "background: it touches 3 sides of the photo"


def test_overlap_decides_about_duplicates_as_counted_pixel_by_pixel():
    random = np.random.default_rng(0)
    for _ in range(20):
        spans = np.sort(random.integers(1, 79, (2, 2, 2)), axis=2)
        if (np.diff(spans) < 8).any():
            continue
        one, two = (block(s[0], s[1], score) for s, score in zip(spans, (0.9, 0.8), strict=True))
        overlap = (one.mask & two.mask).sum() / (one.mask | two.mask).sum()
        kept, _ = clean([one, two], same=0.3)
        assert len(kept) == (1 if overlap > 0.3 else 2)


def test_an_empty_mask_is_dropped():
    kept, dropped = clean([Segment(np.zeros((5, 5), bool), 1.0)])
    assert kept == []
    assert dropped[0].reason == "sliver of 0 pixels"


def test_words_and_thresholds_reach_a_segmenter_that_knows_words():
    example = s3.load_example("coffee")
    shape = example.image.shape[:2]
    told = Told([block((50, 90), (50, 90), 0.8, shape), block((100, 150), (50, 90), 0.5, shape)])
    found = find_objects(example, told, prompt="a cup", threshold=0.6, mask_threshold=0.3)
    assert told.asked == [("a cup", 0.6, 0.3)]
    assert len(found.kept) == 1
    find_objects(example, told)
    assert told.asked[-1] == ("interior objects", 0.4, 0.4)
    assert (told.threshold, told.mask_threshold) == (0.4, 0.4), "the caller's own stay"
    with pytest.raises(InputError, match=r"threshold.*1\.5"):
        find_objects(example, told, threshold=1.5)
    with pytest.raises(InputError, match=r"mask_threshold.*nan"):
        find_objects(example, told, mask_threshold=float("nan"))


def test_sam3_is_taken_where_its_weights_are_ready(no_sam3, monkeypatch):
    assert finding.best_segmenter() == "embedded"
    monkeypatch.setattr("sam3d_nb.masks.sam_weights.weights_missing", lambda name: "")
    assert finding.best_segmenter() == "sam3"


def test_found_masks_take_the_place_of_those_of_the_example():
    example = s3.load_example("coffee")
    shape = example.image.shape[:2]
    named = Segment(block((60, 90), (50, 90), shape=shape).mask, 0.9, "mug")
    made = with_masks(example, [named, block((50, 90), (50, 90), shape=shape)])
    assert made.names == {0: "mug 0", 1: "object 1"}
    assert (made.mask(0) == named.mask).all()
    assert len(example.masks) == 3, "the example is what it was"
    with pytest.raises(ReconstructionError, match=r"no object was found.*threshold"):
        with_masks(example, [])


def test_the_truth_of_an_example_is_not_that_of_masks_that_are_found():
    example = s3.load_example("living_room")
    assert example.true_mesh(0) is not None
    made = with_masks(example, [Segment(example.mask(1), 1.0)])
    assert made.true_mesh(0) is None
    assert repr(made).startswith("Example('living_room'")


def run(folder, output, *more):
    options = ["--image_path", str(folder), "--output_dir", str(output), "--model", "silhouette"]
    return main(["inference", *options, *more])


def test_a_scene_of_masks_that_are_found_and_once_more_by_minus_1(
    folder, tmp_path, capsys, no_sam3
):
    output = tmp_path / "output"
    assert run(folder, output, "--mask_index=-2") == 0
    printed = capsys.readouterr()
    assert "embedded found" in printed.err
    (masks,) = output.glob("*_blocks_masks")
    (scene,) = output.glob("*_blocks_scene")
    assert f"--image_path={masks} --mask_index=-1" in printed.err
    assert (scene / "scene.glb").stat().st_size > 1000
    saved = s3.load_example(masks)
    assert {0, 1} <= set(saved.masks)
    image = saved.image.astype(int)
    red, blue = (image[..., 0] - image[..., 2] > 90), (image[..., 2] - image[..., 0] > 90)
    for color in (red, blue):
        best = max((m & color).sum() / (m | color).sum() for m in saved.masks.values())
        assert best > 0.95
    assert run(masks, tmp_path / "again", "--mask_index=-1", "--overwrite") == 0
    (again,) = (tmp_path / "again").glob("*_scene")
    assert node_names(again / "scene.glb") == node_names(scene / "scene.glb")


def test_results_are_named_after_the_photo_and_carry_one_time(folder, tmp_path, no_sam3):
    photo = (folder / "image.png").rename(folder / "two blocks.png")
    assert s3.load_example(photo).name == "two blocks"
    assert run(photo, tmp_path / "out", "--mask_index=-2") == 0
    masks, scene = sorted((tmp_path / "out").iterdir())
    assert re.fullmatch(r"\d{8}-\d{6}_two_blocks_masks", masks.name)
    assert re.fullmatch(r"\d{8}-\d{6}_two_blocks_scene", scene.name)
    again = tmp_path / "again"
    assert run(masks, again, "--mask_index=-1") == run(masks, again, "--mask_index=0") == 0
    assert all(path.name.count("_two_blocks_masks_") == 1 for path in again.iterdir())
    assert all(len(re.findall(r"\d{8}-\d{6}", path.name)) == 1 for path in again.iterdir())


def test_a_folder_with_masks_names_its_results_and_masks_that_are_found_do_not(folder):
    photo = (folder / "image.png").rename(folder / "two blocks.png")
    Image.new("L", (180, 130), 255).save(folder / "0.png")
    example = s3.load_example(photo)
    assert example.name == "blocks"
    mask = np.ones((130, 180), bool)
    assert with_masks(example, [Segment(mask, 1.0)]).name == "two blocks"


def node_names(path):
    content = path.read_bytes()
    length = int.from_bytes(content[12:16], "little")
    return [node.get("name") for node in json.loads(content[20 : 20 + length])["nodes"]]


def test_no_object_is_a_message_and_a_code_and_no_folder(folder, tmp_path, capsys, no_sam3):
    Image.new("RGB", (180, 130), (120, 130, 140)).save(folder / "image.png")
    output = tmp_path / "output"
    assert run(folder, output, "--mask_index=-2") == ReconstructionError.exit_code
    printed = capsys.readouterr().err
    assert "no object was found on blocks; lower the threshold" in printed
    assert not output.exists() or not any(output.iterdir())


def test_a_threshold_that_nothing_reaches_is_told(folder, tmp_path, capsys, no_sam3):
    code = run(folder, tmp_path / "output", "--mask-index=-2", "--sam-threshold=1")
    assert code == ReconstructionError.exit_code
    assert "found 0 masks" in capsys.readouterr().err


def test_words_for_a_segmenter_without_words_are_told(folder, tmp_path, capsys, no_sam3):
    assert run(folder, tmp_path / "out", "--mask_index=-2", "--sam_prompt=red things") == 0
    assert "embedded knows no words, so 'red things'" in capsys.readouterr().err
    assert run(folder, tmp_path / "out", "--mask_index=-2", "--sam_mask_threshold=0.9") == 0
    assert "embedded makes no use of a threshold of pixels" in capsys.readouterr().err


def test_masks_within_others_are_counted_and_told():
    shape = s3.load_example("coffee").image.shape[:2]
    group = block((50, 150), (50, 250), 0.9, shape)
    cup, plate = (block((60, 140), x, 0.8, shape) for x in ((60, 120), (140, 240)))
    alone = block((300, 350), (400, 500), 0.7, shape)
    assert count_nested([]) == count_nested([alone, group]) == 0
    assert count_nested([cup, group, plate, alone]) == 2
    found = find_objects(s3.load_example("coffee"), Told([group, cup, plate, alone]))
    assert "2 of 4 lie within a larger one" in found.report()[-1]


def test_of_proposals_of_embedded_those_that_make_a_scene_are_kept():
    class Proposals(Proposing):
        name = "embedded"

        def everything(self, image, pointmap=None):
            lone = block((10, 30), (500, 550), 0.3, image.shape[:2])
            return [replace(s, score=s.score + 0.3) for s in super().everything(image)] + [lone]

    def scores(segments):
        return [round(one.score, 1) for one in segments]

    example = s3.load_example("coffee")
    assert len(find_objects(example, Proposing()).kept) == 4, "its scores are no probabilities"
    found = find_objects(example, Proposals())
    assert scores(found.kept) == [1.0, 0.8, 0.8]
    assert scores(found.left_out) == [0.9, 0.3]
    assert "embedded found 5 masks, 3 objects kept" in found.report()
    assert "groups do: 1; left out as unlikely: 1, which a threshold" in found.report()[-1]
    found = find_objects(example, Proposals(), threshold=0.0)
    assert scores(found.kept) == [1.0, 0.8, 0.8, 0.3]


@pytest.mark.parametrize(
    ("more", "code", "says"),
    [
        (["--mask_index=-1", "--sam_prompt=cup"], 3, "--sam_prompt is about finding masks"),
        (["--sam_threshold=0.5"], 3, "it needs --mask_index=-2"),
        (["--mask_index=-2", "--segmenter=sam9"], 3, "no segmenter 'sam9'"),
        (["--segmenter=sam9"], 3, "no segmenter 'sam9'; choose from embedded, sam3, sam2"),
        (["--mask_index=-1", "--segmenter=sam9", "--sam_prompt=cup"], 3, "no segmenter 'sam9'"),
        (["--segmenter=sam3"], 3, "--segmenter is about finding masks; it needs --mask_index=-2"),
        (["--mask_index=-2", "--segmenter=sam3"], 5, "weights download --segmenter sam3"),
        (["--mask_index=-2", "--segmenter=sam2"], 5, "weights download --segmenter sam2"),
        (["--mask_index=-2", "--sam_threshold=2"], 3, "threshold is a number from 0 to 1"),
        (["--mask_index=-2", "--sam_mask_threshold=-1"], 3, "mask_threshold is a number from 0"),
        (["--mask_index=-3"], 3, "-2 for one of masks that are found"),
        (["--mask_index=-2", "--segmenter=sam3", "--realign=up"], 3, "no re-alignment 'up'"),
    ],
)
def test_options_that_do_not_fit_are_told_before_a_model_is_loaded(
    folder, tmp_path, capsys, no_sam3, monkeypatch, more, code, says
):
    monkeypatch.setattr("sam3d_nb.zoo.load_model", None)
    assert run(folder, tmp_path / "out", *more) == code
    assert says in capsys.readouterr().err


# --- The widget -------------------------------------------------------------------------------


@pytest.fixture
def finder():
    example = s3.load_example("coffee")
    shape = example.image.shape[:2]
    places = [((50, 90), (50, 90), 0.9), ((100, 150), (50, 90), 0.6), ((101, 150), (50, 90), 0.5)]
    return s3.MaskFinder(example, Told([block(*place, shape) for place in places]))


def test_counts_follow_the_threshold(finder):
    assert "<b>2</b> of 3 masks by sam3; left out: 1 near-duplicate" in finder.counts.value
    finder.threshold.value = 0.7
    assert "<b>1</b> of 3 masks" in finder.counts.value
    assert "2 with a lower score" in finder.counts.value
    assert len(finder.boxes.children) == 1
    finder.threshold.value = 0.95
    assert "<b>0</b>" in finder.counts.value
    with pytest.raises(ReconstructionError, match="no object"):
        _ = finder.example


def test_what_is_unticked_is_left_out(finder, tmp_path):
    before = finder.picture.value
    finder.boxes.children[0].value = False
    assert finder.chosen == [1]
    assert finder.picture.value != before
    assert list(finder.example.masks) == [1], "the number that the picture shows"
    assert (finder.example.masks[1] == finder.segments[1].mask).all()
    saved = finder.save(tmp_path / "mine")
    assert (s3.load_example(saved).masks[1] == finder.masks[1]).all()
    with pytest.raises(OutputError, match="holds an example"):
        finder.save(tmp_path / "mine")


def test_what_was_unticked_stays_so_when_the_threshold_moves(finder):
    finder.boxes.children[0].value = False
    finder.threshold.value = 0.7
    assert finder.chosen == []
    finder.threshold.value = 0.4
    assert finder.chosen == [1]
    finder.boxes.children[0].value = True
    finder.threshold.value = 0.5
    assert finder.chosen == [0, 1]
    finder.boxes.children[0].value = False
    finder.button.click()
    assert finder.chosen == [0, 1], "what is found anew is ticked"


def test_words_are_asked_for_by_the_button(finder):
    finder.prompt.value = "spoon"
    assert finder.segmenter.asked[-1][0] == "interior objects"
    finder.button.click()
    assert finder.segmenter.asked[-1] == ("spoon", 0.1, 0.4)
    finder.mask_threshold.value = 0.2
    assert finder.segmenter.asked[-1] == ("spoon", 0.1, 0.2)


def test_a_segmenter_without_words_has_no_field_for_them(folder, no_sam3):
    finder = s3.MaskFinder(s3.load_example(folder))
    assert finder.segmenter.name == "embedded"
    assert finder.prompt.disabled
    assert finder.mask_threshold.disabled
    assert len(finder.masks) >= 2
    assert "alt=" in finder.picture.value


class Proposing(Segmenter):
    """A segmenter without words that proposes a group, its parts, and one thing apart."""

    name = "proposing"

    def masks(self, image, prompt):
        return []

    def everything(self, image, pointmap=None):
        shape = image.shape[:2]
        group = block((50, 150), (50, 250), 0.6, shape)
        cup, plate = (block((60, 140), x, 0.5, shape) for x in ((60, 120), (140, 240)))
        return [group, cup, plate, block((300, 350), (400, 500), 0.7, shape)]


def test_of_masks_that_overlap_those_that_make_a_scene_are_ticked_at_first():
    finder = s3.MaskFinder(s3.load_example("coffee"), Proposing())
    assert [round(s.score, 1) for s in finder.segments] == [0.7, 0.6, 0.5, 0.5]
    assert finder.chosen == [0, 2, 3], "the parts are worth more than the group"
    assert "<b>4</b> of 4 masks" in finder.counts.value
    assert "make a scene without overlaps" in finder.counts.value
    assert not (np.sum(list(finder.masks.values()), axis=0) > 1).any()
    finder.boxes.children[1].value = True
    finder.threshold.value = 0.55
    assert finder.chosen == [0, 1], "what was ticked by hand stays so"


@pytest.mark.parametrize(
    "wrong",
    [{"threshold": 7}, {"threshold": -0.1}, {"mask_threshold": 2}, {"threshold": float("nan")}],
)
def test_the_widget_refuses_thresholds_that_are_none(wrong):
    with pytest.raises(InputError, match="threshold is a number from 0 to 1 but got"):
        s3.MaskFinder(s3.load_example("coffee"), Told([]), **wrong)


def test_a_threshold_below_the_usual_least_one_is_kept():
    told = Told([block((50, 90), (50, 90), 0.08, s3.load_example("coffee").image.shape[:2])])
    finder = s3.MaskFinder(s3.load_example("coffee"), told, threshold=0.05)
    assert finder.threshold.value == 0.05
    assert len(finder.masks) == 1


def test_missing_weights_are_told_before_anything_is_shown(no_sam3):
    with pytest.raises(WeightsError, match="sam3 has no weights"):
        s3.MaskFinder(s3.load_example("coffee"), "sam3")
