"""SAM 2 and SAM 3: the real classes with tiny random networks, from files to masks."""

import os

import numpy as np
import pytest
import torch
from small_sam import sam2_network, sam3_network, write_sam2, write_sam3

import sam3d_nb as s3
from sam3d_nb.errors import InputError, WeightsError
from sam3d_nb.masks import sam2, sam3
from sam3d_nb.masks.sam import enlarged, pixel_values
from sam3d_nb.masks.segmenter import Prompt
from sam3d_nb.weights.folder import FileRecord, hash_file, write_manifest


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="module")
def photo():
    return np.random.default_rng(0).integers(0, 255, (60, 90, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder of weights with both segmenters, as a download leaves it."""
    root = tmp_path_factory.mktemp("weights")
    for name, write in (("sam2", write_sam2), ("sam3", write_sam3)):
        folder = write(root / name)
        files = {
            path.name: FileRecord(path.stat().st_size, hash_file(path)) for path in folder.iterdir()
        }
        write_manifest(folder, name, files)
    return root


@pytest.fixture
def ready(weights, monkeypatch):
    monkeypatch.setenv("SAM3D_NB_WEIGHTS", str(weights))
    return weights


@pytest.mark.parametrize(
    ("prompt", "count"),
    [
        (Prompt(points=[(30, 20)]), 3),
        (Prompt(points=[(30, 20), (80, 50)], labels=[True, False]), 1),
        (Prompt(box=(10, 10, 50, 50)), 1),
        (Prompt(box=(10, 10, 50, 50), points=[(20, 20)]), 1),
        (Prompt(scribble=np.eye(60, 90, dtype=bool)), 1),
    ],
)
def test_sam2_gives_masks_of_the_photos_size(ready, photo, prompt, count):
    found = s3.load_segmenter("sam2", "cpu").masks(photo, prompt)
    assert 1 <= len(found) <= count
    assert all(segment.mask.shape == (60, 90) and segment.mask.dtype == bool for segment in found)
    scores = [segment.score for segment in found]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)


@pytest.mark.parametrize("name", ["sam2", "sam3"])
def test_loading_draws_no_bar_and_leaves_those_of_others_alone(ready, capfd, name):
    from transformers.utils import logging

    s3.load_segmenter(name, "cpu")
    captured = capfd.readouterr()
    assert "\r" not in captured.out + captured.err
    assert logging.is_progress_bar_enabled()


def test_sam2_says_what_the_network_itself_says(photo):
    network = sam2_network()
    ours = sam2.Sam2(network).masks(photo, Prompt(box=(9, 6, 45, 30)))[0]
    with torch.inference_mode():
        output = network(
            pixel_values=pixel_values(photo, 64, sam2.MEAN, sam2.STD, "cpu"),
            input_boxes=torch.tensor([[[9 / 90 * 64, 6.4, 32.0, 32.0]]]),
            multimask_output=False,
        )
    logits = torch.nn.functional.interpolate(output.pred_masks[0], (60, 90), mode="bilinear")
    assert (ours.mask == (logits[0, 0] > 0).numpy()).all()
    assert ours.score == pytest.approx(float(output.iou_scores), abs=1e-5)


def test_sam2_finds_everything_without_near_duplicates(photo):
    network = sam2_network()
    for layers in network.mask_decoder.output_hypernetworks_mlps:
        layers.proj_out.weight.data *= 1e6  # surer masks than chance gives
    segmenter = sam2.Sam2(network, score=0.0, stability=0.0)
    found = segmenter.everything(photo)
    assert found
    for one in range(len(found)):
        for two in range(one):
            a, b = found[one].mask, found[two].mask
            assert (a & b).sum() / (a | b).sum() < 0.85  # 0.7 in the network's 16 x 16 pixels
    segmenter.score = 1.1
    assert segmenter.everything(photo) == []


def test_sam2_looks_at_a_photo_once(photo, monkeypatch):
    network = sam2_network()
    looked = []
    real = network.get_image_embeddings
    monkeypatch.setattr(network, "get_image_embeddings", lambda x: looked.append(1) or real(x))
    segmenter = sam2.Sam2(network)
    segmenter.prepare(photo)
    segmenter.masks(photo, Prompt(points=[(1, 1)]))
    segmenter.masks(photo, Prompt(points=[(5, 5)]))
    assert len(looked) == 1


def test_sam3_gives_masks_by_words(ready, photo):
    segmenter = s3.load_segmenter("sam3", "cpu")
    assert (segmenter.threshold, segmenter.mask_threshold) == (0.4, 0.4)
    segmenter.threshold = 0.0
    found = segmenter.everything(photo)
    assert len(found) == 6
    assert all(segment.mask.shape == (60, 90) and segment.mask.dtype == bool for segment in found)
    assert {segment.name for segment in found} == {"interior objects"}
    assert found[0].score == max(segment.score for segment in found)
    other = segmenter.masks(photo, Prompt(text="chair"))
    assert [s.score for s in other] != [s.score for s in found], "words count"


def test_sam3_says_what_the_network_itself_says(ready, photo):
    segmenter = s3.load_segmenter("sam3", "cpu")
    network = sam3_network()
    words = torch.ones(1, 32, dtype=torch.int64)
    words[0, :3] = torch.tensor([0, 2, 3])
    with torch.inference_mode():
        output = network(
            pixel_values=pixel_values(photo, 112, sam3.MEAN, sam3.STD, "cpu"),
            input_ids=words,
            attention_mask=(torch.arange(32) < 4)[None].long(),
        )
    scores = output.pred_logits.sigmoid() * output.presence_logits.sigmoid()
    best = int(scores.argmax())
    masks = torch.nn.functional.interpolate(output.pred_masks.sigmoid(), (60, 90), mode="bilinear")
    segmenter.threshold, segmenter.mask_threshold = 0.0, float(masks[0, best].median())
    ours = segmenter.masks(photo, Prompt(text="interior objects"))[0]
    assert ours.score == pytest.approx(float(scores.max()), abs=1e-5)
    expected = (masks[0, best] > segmenter.mask_threshold).numpy()
    assert (ours.mask == expected).mean() > 0.999


def test_sam3_thresholds_change_what_is_returned_without_asking_again(ready, photo, monkeypatch):
    segmenter = s3.load_segmenter("sam3", "cpu")
    segmenter.threshold = 0.0
    scores = [s.score for s in segmenter.masks(photo, Prompt(text="chair"))]
    monkeypatch.setattr(segmenter, "_network", None)
    segmenter.threshold = float(np.mean(scores))
    fewer = segmenter.masks(photo, Prompt(text="chair"))
    assert [s.score for s in fewer] == [score for score in scores if score > segmenter.threshold]
    segmenter.threshold, segmenter.mask_threshold = 0.0, 1.0
    assert segmenter.masks(photo, Prompt(text="chair")) == []


@pytest.mark.parametrize(
    ("name", "prompt", "says"),
    [
        ("sam2", Prompt(text="chair"), "segmenter 'sam2' knows no words"),
        ("sam2", Prompt(), "empty"),
        ("sam3", Prompt(points=[(3, 3)]), "by words"),
        ("sam3", Prompt(box=(1, 1, 9, 9), text="chair"), "by words"),
        ("sam3", Prompt(text="  "), "say what to find"),
    ],
)
def test_prompts_that_are_not_understood_are_told(ready, photo, name, prompt, says):
    with pytest.raises(InputError, match=says):
        s3.load_segmenter(name, "cpu").masks(photo, prompt)


def test_missing_weights_are_told_with_the_next_step(tmp_path, monkeypatch):
    monkeypatch.setenv("SAM3D_NB_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match=r"facebook/sam3.*weights download --segmenter sam3"):
        s3.load_segmenter("sam3")
    with pytest.raises(WeightsError, match="run: sam3d-nb weights download --segmenter sam2-tiny"):
        s3.load_segmenter("sam2-tiny")
    assert os.listdir(tmp_path) == [], "nothing is downloaded unasked"


def test_damaged_weights_are_told(tmp_path, monkeypatch):
    monkeypatch.setenv("SAM3D_NB_WEIGHTS", str(tmp_path))
    folder = write_sam2(tmp_path / "sam2")
    (folder / "config.json").write_text("{}")
    files = {p.name: FileRecord(p.stat().st_size, hash_file(p)) for p in folder.iterdir()}
    write_manifest(folder, "sam2", files)
    (folder / "model.safetensors").write_bytes(b"12")
    with pytest.raises(WeightsError, match="sam2 is damaged"):
        s3.load_segmenter("sam2")


def test_a_missing_package_is_told(monkeypatch, ready):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "transformers" else find(name)
    )
    with pytest.raises(WeightsError, match=r"-m pip install .*-e '\.\[sam\]'"):
        s3.load_segmenter("sam2")


def test_enlarging_many_masks_in_parts_gives_the_same_as_at_once():
    values = torch.randn(19, 5, 7, generator=torch.Generator().manual_seed(0))
    whole = torch.nn.functional.interpolate(values[None], (30, 20), mode="bilinear")[0] > 0.2
    assert (np.stack(list(enlarged(values, (30, 20), 0.2))) == whole.numpy()).all()
