"""Real data sets from the Hugging Face Hub: a server on this machine stands for it, with miniatures of all four."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from rdfa.data.features import FeatureStore
from rdfa.data.fetch import fetch
from rdfa.data.folder import open_folder
from rdfa.errors import RdfaError
from rdfa.files import read_json, sha256
from rdfa.identity import keys
from tests.data.hub_server import COMMIT, Hub
from tests.data.hub_sets import (
    CHANNELS,
    DATASETS,
    archive,
    assert_whole,
    entries,
    full_run,
    member,
    miniature,
    parts,
    publish,
    refusal,
    tensor_file,
)

OTHER = hashlib.sha1(b"second").hexdigest()


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_data_set_is_downloaded_converted_and_described(
    dataset: str, hub: Hub, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published = miniature(dataset)
    files = publish(hub, published)
    published.place(place)
    manifest = read_json(fetch(published.run, place, "k"))
    assert_whole(published, place)
    said = capsys.readouterr().err
    assert f"main is commit {COMMIT}; to pin it: source.hub.revision={COMMIT}" in said
    for number in (1, 2, 3):
        assert f"part {number} of 3: " in said and f"{3 - number} parts left" in said
    store = FeatureStore(place / "features.h5")
    for name, video in published.annotations["database"].items():
        if video["annotations"]:
            attributes = store.attributes(name)
            assert attributes.fps == video.get("fps", 30.0) and attributes.duration == video["duration"]
            assert (attributes.stride, attributes.window) == (published.run.features.stride, 16)
            assert store.split(name) == video["subset"]
    store.close()
    assert manifest["origin"]["commit"] == COMMIT
    assert manifest["origin"]["repository"] == published.repository
    assert {path: part["bytes"] for path, part in manifest["origin"]["parts"].items()} == {
        path: len(content) for path, content in files.items() if ".part" in path
    }
    assert manifest["files"]["features.h5"]["sha256"] == sha256(place / "features.h5")
    assert ("external_scores.json" in manifest["files"]) == (dataset in ("activitynet", "hacs"))
    assert manifest["origin"]["feature_files_not_used"] == (dataset == "hacs")
    assert sum(request.sent for request in hub.contents()) == sum(len(files[path]) for path in files if ".part" in path)


def test_scores_as_others_publish_them_are_understood(hub: Hub, place: Path) -> None:
    published = miniature("activitynet")
    publish(hub, published)
    published.place(place)
    fetch(published.run, place, "k")
    opened = open_folder(published.run, place)
    opened.store.close()
    assert published.scores is not None and opened.scores is not None
    video, row = next(iter(published.scores["results"].items()))
    assert opened.scores[video]["Class 007"] == row[7]


def test_fetching_again_asks_nobody(hub: Hub, place: Path) -> None:
    published = miniature("thumos14")
    publish(hub, published)
    published.place(place)
    fetch(published.run, place, "k")
    hub.log.clear()
    fetch(published.run, place, "k")
    fetch(published.run, place, "another model's key")
    assert hub.log == [], "the store is as asked for: nothing is downloaded for another manifest either"
    first, second = (read_json(place / f"manifest-{key}.json") for key in ("k", "another model's key"))
    assert first["origin"] == second["origin"]


def test_the_server_is_one_that_the_hubs_own_client_can_use(hub: Hub, tmp_path: Path) -> None:
    from huggingface_hub import HfApi

    published = miniature("thumos14")
    files = publish(hub, published)
    for name, content in files.items():
        got = HfApi(endpoint=hub.url).hf_hub_download(
            published.repository, name, repo_type="dataset", revision=COMMIT, local_dir=tmp_path
        )
        assert Path(got).read_bytes() == content


def test_a_token_goes_to_the_hub_and_no_further(hub: Hub, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = miniature("thumos14")
    publish(hub, published)
    published.place(place)
    hub.token = "hf_secret"
    assert "there is no such data set, or it is private" in refusal(published, place)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fetch(published.run, place, "k")
    asked = {request.path.split("/")[1]: request.authorization for request in hub.log}
    assert asked == {"api": "Bearer hf_secret", "datasets": "Bearer hf_secret", "content": None}


def test_main_is_resolved_once_and_a_begun_download_stays_with_its_commit(hub: Hub, place: Path) -> None:
    published = miniature("thumos14")
    publish(hub, published)
    published.place(place)
    hub.break_after = [5000, 0, 0]
    assert "goes on from byte 5000" in refusal(published, place)
    publish(hub, miniature("thumos14", seed=1), OTHER)
    assert read_json(fetch(published.run, place, "k"))["origin"]["commit"] == COMMIT
    assert_whole(published, place)


def test_a_pinned_revision_is_what_is_fetched(hub: Hub, place: Path) -> None:
    old, new = miniature("thumos14", f"source.hub.revision={COMMIT}"), miniature("thumos14", seed=1)
    publish(hub, old)
    publish(hub, new, OTHER)
    old.place(place)
    hub.break_after = [5000, 0, 0]
    refusal(new, place)  # begins with main
    fetch(old.run, place, "k")
    assert_whole(old, place)
    changed = miniature("thumos14", f"source.hub.revision={OTHER}", seed=1)
    changed.place(place)
    fetch(changed.run, place, "k2")
    assert_whole(changed, place)
    assert not (place / "manifest-k.json").exists(), "it described the store that was replaced"


def test_files_that_only_a_person_can_get_are_asked_for_by_name(hub: Hub, place: Path) -> None:
    published = miniature("activitynet")
    publish(hub, published)
    message = refusal(published, place)
    assert "2 files without a lasting public address must be put in place by hand" in message
    for file, what in (("annotations.json", "anet1.3_tsp_filtered.json"), ("external_scores.json", "K40_f16_frozen")):
        assert str(place / file) in message and what in message
    assert "github.com/happyharrycn/actionformer_release" in message and "then checked: its layout" in message
    assert hub.log == [], "nothing is downloaded before"
    published.place(place)
    fetch(published.run, place, "k")
    assert_whole(published, place)


def test_annotations_with_an_address_are_downloaded_and_checked(hub: Hub, place: Path) -> None:
    content = json.dumps(miniature("thumos14").annotations).encode()
    hub.publish("some/where", {"thumos14.json": content})
    url = f"{hub.url}/content/some/where/{COMMIT}/thumos14.json"
    at = (f"source.hub.annotations.url={url}", f"source.hub.annotations.sha256={hashlib.sha256(content).hexdigest()}")
    published = miniature("thumos14", *at)
    publish(hub, published)
    hub.corrupt = {"thumos14.json"}
    assert "what came has the checksum sha256:" in refusal(published, place)
    assert entries(place) == []
    hub.corrupt = set()
    fetch(published.run, place, "k")
    assert (place / "annotations.json").read_bytes() == content


def test_annotations_that_are_not_the_known_ones_are_refused(hub: Hub, place: Path) -> None:
    published = miniature("thumos14", f"source.hub.annotations.sha256={'b' * 64}")
    publish(hub, published)
    published.place(place)
    message = refusal(published, place)
    assert "annotations.json: is not thumos14.json of ActionFormer" in message
    assert "set source.hub.annotations.sha256 to its own or to null" in message


def test_videos_without_features_are_counted_listed_and_left_out(hub: Hub, place: Path) -> None:
    published = miniature("thumos14", "source.hub.missing_at_most=0.2")
    lost = next(iter(published.features))
    del published.features[lost]
    publish(hub, published)
    published.place(place)
    manifest = read_json(fetch(published.run, place, "k"))
    assert manifest["without_features"] == {"Validation": [lost], "Test": []}
    assert manifest["splits"]["Validation"]["videos"] == 4
    opened = open_folder(published.run, place)
    assert lost not in opened.annotations.by_name and len(opened.annotations.subset("Validation").videos) == 4
    opened.store.close()
    strict = full_run("thumos14", "source.hub.missing_at_most=0.19")
    with pytest.raises(RdfaError, match=r"1 of 5 annotated videos of split 'Validation' have no features: .* 19.00%"):
        fetch(strict, place, "strict")


def test_corrected_annotations_need_no_new_download(hub: Hub, place: Path) -> None:
    published = miniature("thumos14")
    publish(hub, published)
    published.place(place)
    fetch(published.run, place, "k")
    hub.log.clear()
    name = next(iter(published.features))
    published.annotations["database"][name]["annotations"].pop()
    published.place(place)
    fetch(published.run, place, "k")
    published.annotations["database"][name]["duration"] += 60
    published.place(place)
    with pytest.raises(
        RdfaError, match=r"its annotations say .*\n\(if annotations.json is right, remove .*features.h5"
    ):
        fetch(published.run, place, "k")
    assert hub.log == []


def test_a_wrong_name_pattern_is_said_and_its_correction_needs_no_new_download(hub: Hub, place: Path) -> None:
    published, wrong = miniature("thumos14"), miniature("thumos14", "source.hub.suffix=_other.pt")
    publish(hub, published)
    published.place(place)
    assert "no member of the archive is called VIDEO_other.pt (source.hub.prefix, suffix)" in refusal(wrong, place)
    hub.log.clear()
    fetch(published.run, place, "k")
    assert hub.log == []
    assert_whole(published, place)


@pytest.mark.parametrize(
    ("axes", "turn"),
    [
        ("[channel, time]", lambda array: array.T),
        ("[time, mean, channel]", lambda array: np.stack([array - 1, array + 1], axis=1)),
        (
            "[channel, mean, time, mean]",
            lambda array: np.broadcast_to(array.T[:, None, :, None], (8, 2, len(array), 3)),
        ),
    ],
)
def test_tensors_are_read_by_the_axes_that_the_parameters_name(hub: Hub, place: Path, axes: str, turn) -> None:  # type: ignore[no-untyped-def]
    published = miniature("thumos14", f"source.hub.axes={axes}")
    plain = {name: np.round(array * 8).astype(np.float32) for name, array in published.features.items()}
    published.features = {name: np.ascontiguousarray(turn(array)) for name, array in plain.items()}
    publish(hub, published)
    published.place(place)
    fetch(published.run, place, "k")
    published.features = plain
    assert_whole(published, place)


def test_what_identifies_a_data_set_is_commit_and_checksums_and_not_how_they_are_described() -> None:
    def key(*overrides: str) -> str:
        return keys(full_run("activitynet", *overrides)).fetch

    assert key("source.hub.annotations.where=elsewhere", "source.hub.attempts=9") == key()
    changes = (
        (),
        (f"source.hub.revision={COMMIT}",),
        (f"source.hub.revision={OTHER}",),
        (f"source.hub.scores.sha256={'a' * 64}",),
        (f"source.hub.annotations.sha256={'a' * 64}",),
        ("source.hub.axes=[channel, time]",),
    )
    assert len({key(*change) for change in changes}) == len(changes)


def test_features_of_another_repository_replace_the_store(hub: Hub, place: Path) -> None:
    first, second = miniature("thumos14"), miniature("thumos14", "source.hub.repository=some/where_else")
    publish(hub, first)
    second.features = {name: -array for name, array in first.features.items()}
    content = archive(second.members())
    other = full_run("thumos14", "source.hub.repository=some/where_else", "source.hub.archives=['*.part*']")
    hub.publish("some/where_else", parts("some/where_else", content, 2))
    first.place(place)
    fetch(first.run, place, "k")
    fetch(other, place, "k2")
    assert_whole(second, place)


def test_a_harmed_store_is_made_anew(hub: Hub, place: Path) -> None:
    published = miniature("thumos14")
    publish(hub, published)
    published.place(place)
    fetch(published.run, place, "k")
    whole = (place / "features.h5").read_bytes()
    (place / "features.h5").write_bytes(whole[:-100] + bytes(100))
    fetch(published.run, place, "k")
    assert (place / "features.h5").read_bytes() == whole


def test_a_small_part_is_checked_by_gits_checksum(hub: Hub, place: Path) -> None:
    """The Hub stores files below some megabytes in git itself, without a SHA-256."""
    published = miniature("thumos14")
    content = archive(published.members())
    name = published.repository.split("/")[1]
    hub.publish(published.repository, {f"{name}.partaa": content[:-500], f"{name}.partab": content[-500:]})
    published.place(place)
    hub.corrupt = {f"{name}.partab"}
    assert "what came has the checksum git:" in refusal(published, place)
    hub.corrupt = set()
    manifest = read_json(fetch(published.run, place, "k"))
    assert manifest["origin"]["parts"][f"{name}.partab"]["checksum"].startswith("git:")
    assert_whole(published, place)


def test_two_archives_make_one_store(hub: Hub, place: Path) -> None:
    published = miniature("thumos14", "source.hub.archives=['train.tar.gz.*', 'test.tar.gz.*']")
    members = published.members()
    files = {"train.tar.gz.0": archive(members[:5]), "test.tar.gz.0": archive(members[5:])}
    hub.publish(published.repository, files)
    published.place(place)
    fetch(published.run, place, "k")
    assert_whole(published, place)


def test_tensors_in_other_precisions_become_single(hub: Hub, place: Path) -> None:
    published = miniature("thumos14")
    types = (torch.float16, torch.float32, torch.bfloat16, torch.float64)
    published.features = {name: np.round(array * 4) for name, array in published.features.items()}
    members = [
        member(info.name, tensor_file(torch.from_numpy(array).to(types[index % 4])))
        for index, ((info, _), array) in enumerate(zip(published.members(), published.features.values(), strict=True))
    ]
    hub.publish(published.repository, parts(published.repository, archive(members), 1))
    published.place(place)
    fetch(published.run, place, "k")
    assert_whole(published, place)
    assert CHANNELS == 8
