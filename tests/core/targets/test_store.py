"""The target store in one process: what goes in comes out, and what is not as it should be is refused."""

import hashlib
import itertools
import json
import os
import pickle
import pickletools
import random
import re
import shutil
import stat
import zipfile

import pytest
import torch
from full_disk import full_disk
from safetensors.torch import load_file, save
from torch import nn

from uncertainty_core.targets.hashing import file_sha256, state_dict_sha256
from uncertainty_core.targets.store import TargetStore, TargetStoreError, write_targets

FINGERPRINT = {"weights": "c0ffee", "num_samples": 10, "rate": 0.5, "note": None, "size": [3, 4]}
BATCH = torch.arange(24.0).reshape(2, 3, 4)
TARGETS = {
    7: {"float32": torch.tensor([0.1, -0.0, float("nan"), float("inf")]), "float16": BATCH[0].half() / 3},
    "7": {"uint16": torch.tensor([0, 1, 2**16 - 1], dtype=torch.uint16), "bfloat16": BATCH.bfloat16()},
    "dir/ü\n.png": {},  # nothing detected
    0: {"bool": BATCH > 5, "int64": torch.tensor(-(2**63)), "empty": torch.empty(0, 4), "float64": BATCH.double()},
    -3: {
        "view/of a batch": BATCH[1],
        "turned": BATCH[0].T,
        "strided": BATCH[:, ::2, 1],
        "wide": BATCH[:1].expand(5, 3, 4),
    },
}
IDS = list(TARGETS)


def make(ids):
    return (TARGETS[i] for i in ids)


def write(folder, ids=IDS, make=make, fingerprint=FINGERPRINT, shard_size=2, **options):
    write_targets(folder, ids, make, fingerprint, shard_size, **options)
    return folder


@pytest.fixture
def folder(tmp_path):
    """A finished store of three shards."""
    return write(tmp_path / "store")


def tree(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def assert_same(found, expected):
    """Bit by bit: NaN equals NaN, -0.0 is not 0.0."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert found[name].flatten().view(torch.uint8).tolist() == tensor.flatten().view(torch.uint8).tolist()


def assert_right(folder, expected=TARGETS):
    store = TargetStore(folder, FINGERPRINT)
    assert list(store) == list(expected)
    for image_id, target in expected.items():
        assert_same(store[image_id], target)


def refusal(call):
    """The message of the TargetStoreError that `call` must raise: a single line."""
    with pytest.raises(TargetStoreError) as caught:
        call()
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def flipped(content, bit):
    content = bytearray(content)
    content[bit // 8] ^= 1 << bit % 8
    return bytes(content)


def change(fingerprint, **values):
    return {name: value for name, value in (fingerprint | values).items() if value is not ...}


# --- round trip


@pytest.mark.parametrize("shard_size", [1, 2, 3, 5, 1000])
def test_what_goes_in_comes_out(tmp_path, shard_size):
    write(tmp_path, shard_size=shard_size)
    assert_right(tmp_path)
    assert TargetStore(tmp_path).num_shards == -(-len(IDS) // shard_size) == len(list(tmp_path.glob("*.safetensors")))


def test_it_is_a_mapping(folder):
    store = TargetStore(folder)
    assert len(store) == len(IDS)
    assert list(store) == list(store.keys()) == store.ids == IDS
    assert [type(i) for i in store] == [type(i) for i in IDS]
    assert all(i in store for i in IDS)
    assert "0" not in store  # 0 is
    assert 8 not in store
    assert store.get("nobody") is None
    with pytest.raises(KeyError, match="nobody"):
        store["nobody"]
    assert store.fingerprint == FINGERPRINT
    assert store.shard_size == 2
    assert store.folder == folder


def test_no_images_make_an_empty_store(tmp_path):
    write(tmp_path, ids=[])
    assert_right(tmp_path, {})
    assert tree(tmp_path).keys() == {"manifest.json"}


def test_a_folder_may_be_text(tmp_path):
    write(str(tmp_path / "deep/er"))
    assert_right(str(tmp_path / "deep/er"))


def test_views_of_a_batch_are_stored_alone(tmp_path):
    large = torch.zeros(100, 1000)
    write(tmp_path, make=lambda ids: ({"row": large[i]} for i, _ in enumerate(ids)))
    assert all(path.stat().st_size < 10_000 for path in tmp_path.iterdir())


def test_tensors_that_need_a_gradient_are_stored(tmp_path):
    write(tmp_path, ids=[1], make=lambda ids: [{"x": torch.ones(2, requires_grad=True) * 2}])
    found = TargetStore(tmp_path)[1]["x"]
    assert found.tolist() == [2, 2]
    assert not found.requires_grad


def test_a_buffer_may_be_reused_by_make(tmp_path):
    buffer = torch.zeros(3)

    def reusing(ids):
        for image_id in ids:
            yield {"x": buffer.fill_(image_id)}

    write(tmp_path, ids=[1, 2, 3], make=reusing)
    store = TargetStore(tmp_path)
    assert [store[i]["x"].tolist() for i in store] == [[i] * 3 for i in (1, 2, 3)]


def test_changing_what_was_read_does_not_change_the_store(folder):
    # transforms work in place, and a worker that lives for many epochs reads each image many times
    store = TargetStore(folder)
    store[0]["float64"].zero_()
    assert_same(store[0], TARGETS[0])


def test_make_gets_the_ids_of_one_shard(tmp_path):
    calls = []
    write(tmp_path, make=lambda ids: calls.append(ids) or make(ids))
    assert calls == [IDS[:2], IDS[2:4], IDS[4:]]


# --- files


def test_there_is_no_pickle(folder):
    for name, content in tree(folder).items():
        assert not zipfile.is_zipfile(folder / name)
        with pytest.raises(ValueError):  # not even by accident a sequence of pickle's instructions
            list(pickletools.genops(content))


def test_a_shard_is_a_plain_safetensors_file(folder):
    expected = {f"{k}/{name}": t for k, i in enumerate(IDS[2:4]) for name, t in TARGETS[i].items()}
    assert_same(load_file(folder / "shard-00001.safetensors"), expected)


def test_checksums_are_those_of_sha256sum(folder):
    assert tree(folder).keys() == {"manifest.json"} | {
        f"shard-0000{k}.{end}" for k in range(3) for end in ("safetensors", "sha256")
    }
    for path in folder.glob("*.safetensors"):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert file_sha256(path) == digest
        assert path.with_suffix(".sha256").read_bytes() == f"{digest}  {path.name}\n".encode()


def test_the_manifest_is_json(folder):
    content = json.loads((folder / "manifest.json").read_text(encoding="ascii"))
    assert content["fingerprint"] == FINGERPRINT
    assert content["ids"] == IDS


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_files_are_as_readable_as_their_folder(tmp_path, umask):
    before = os.umask(umask)
    try:
        folder = write(tmp_path / "store")
    finally:
        os.umask(before)
    allowed = stat.S_IMODE(folder.stat().st_mode) & 0o666
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {allowed}


# --- going on


def test_a_finished_store_is_left_alone(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    write(folder, make=lambda ids: pytest.fail(f"asked for {ids}"))
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_an_error_in_make_costs_one_shard(tmp_path, folder):
    def failing(ids):
        for image_id in ids:
            if image_id == 0:
                raise RuntimeError("no such image")
            yield TARGETS[image_id]

    with pytest.raises(RuntimeError, match="no such image"):
        write(tmp_path / "other", make=failing)
    assert tree(tmp_path / "other").keys() == {"manifest.json", "shard-00000.safetensors", "shard-00000.sha256"}
    write(tmp_path / "other")
    assert tree(tmp_path / "other") == tree(folder)


def test_a_full_disk_costs_one_shard(tmp_path):
    targets = {0: {"small": torch.ones(1)}, 1: {"large": torch.ones(3000)}}
    with pytest.raises(OSError, match=r"shard-00001\.safetensors'$"), full_disk(10_000):  # the second has 12,000 bytes
        write(tmp_path, list(targets), lambda ids: map(targets.get, ids), shard_size=1)
    assert tree(tmp_path).keys() == {"manifest.json", "shard-00000.safetensors", "shard-00000.sha256"}
    write(tmp_path, list(targets), lambda ids: map(targets.get, ids), shard_size=1)
    assert_right(tmp_path, targets)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_ranks_in_any_order_write_the_same_bytes(tmp_path, folder, world_size):
    for order in itertools.permutations(range(world_size)):
        other = tmp_path / "-".join(map(str, order))
        for rank in order:
            write(other, rank=rank, world_size=world_size)
        assert tree(other) == tree(folder)


def test_a_rank_writes_its_own_shards_only(tmp_path, folder):
    expected = tree(folder)
    write(tmp_path / "other", rank=1, world_size=2)
    assert tree(tmp_path / "other") == {
        name: expected[name] for name in ("shard-00001.safetensors", "shard-00001.sha256")
    }
    write(tmp_path / "other", rank=0, world_size=2)
    assert tree(tmp_path / "other") == expected


@pytest.mark.parametrize("seed", range(5))
def test_the_number_of_ranks_may_change_between_runs(tmp_path, folder, seed):
    chance = random.Random(seed)
    for _ in range(4):
        world_size = chance.randint(1, 4)
        write(tmp_path / "other", shard_size=2, rank=chance.randrange(world_size), world_size=world_size)
    write(tmp_path / "other", shard_size=2)
    assert tree(tmp_path / "other") == tree(folder)


# --- refusals: other targets

OTHER_FINGERPRINTS = [
    (change(FINGERPRINT, num_samples=11), "num_samples 10, not 11"),
    (change(FINGERPRINT, num_samples=10.0), "num_samples 10, not 10.0"),
    (change(FINGERPRINT, weights="decaf"), 'weights "c0ffee", not "decaf"'),
    (change(FINGERPRINT, size=[4, 3]), "size [3, 4], not [4, 3]"),
    (change(FINGERPRINT, size={"h": "3\n"}), r'size [3, 4], not {"h": "3\n"}'),
    (change(FINGERPRINT, rate=...), "rate 0.5, not absent"),
    (change(FINGERPRINT, note=...), "note null, not absent"),
    (change(FINGERPRINT, threshold=0.3), "threshold absent, not 0.3"),
    (change(FINGERPRINT, threshold=None), "threshold absent, not null"),
    ({}, "note null, not absent"),
]


@pytest.mark.parametrize("use", [TargetStore, lambda folder, other: write(folder, fingerprint=other)])
@pytest.mark.parametrize(("other", "difference"), OTHER_FINGERPRINTS)
def test_a_stale_fingerprint_is_refused(folder, use, other, difference):
    before = tree(folder)
    message = refusal(lambda: use(folder, other))
    assert difference in message
    assert str(folder) in message
    assert tree(folder) == before


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        ({"shard_size": 3}, "shard_size 2, not 3"),
        ({"ids": IDS[:-1]}, "other images (5, not 4"),
        ({"ids": [*IDS, "one more"]}, "other images (5, not 6"),
        ({"ids": IDS[::-1]}, "another order"),
        ({"ids": [*IDS[:-1], "-3"]}, "other images"),
        ({"ids": []}, "other images (5, not 0"),
    ],
)
def test_other_images_or_shards_are_refused(folder, other, difference):
    before = tree(folder)
    assert difference in refusal(lambda: write(folder, **other))
    assert tree(folder) == before


def test_no_rank_adds_to_other_targets(folder):
    refusal(lambda: write(folder, fingerprint={}, rank=1, world_size=2))


@pytest.mark.parametrize("same", [FINGERPRINT, change(FINGERPRINT, size=(3, 4)), dict(reversed(FINGERPRINT.items()))])
def test_the_same_fingerprint_is_recognised(folder, same):
    TargetStore(folder, same).verify()
    write(folder, fingerprint=same, make=lambda ids: pytest.fail("nothing to do"))


FOREIGN = [
    {"fingerprint": change(FINGERPRINT, weights="decaf")},
    {"ids": IDS[::-1]},
    {"shard_size": 3},
]


@pytest.mark.parametrize("other", FOREIGN)
def test_a_shard_of_another_store_is_refused_and_replaced(tmp_path, folder, other):
    before = tree(folder)
    write(tmp_path / "other", **other)
    for name in ("shard-00001.safetensors", "shard-00001.sha256"):
        shutil.copy(tmp_path / "other" / name, folder)
    store = TargetStore(folder, FINGERPRINT)
    assert "shard-00001.safetensors belongs to another store" in refusal(lambda: store[0])
    assert "shard-00001.safetensors belongs to another store" in refusal(store.verify)
    assert_same(store[7], TARGETS[7])  # the other shards are fine
    write(folder)
    assert tree(folder) == before


def test_a_shard_in_the_place_of_another_is_refused_and_replaced(folder):
    # same store, same manifest, but the images of shard 0 would pass for those of shard 1
    before = tree(folder)
    for end in ("safetensors", "sha256"):
        shutil.copy(folder / f"shard-00000.{end}", folder / f"shard-00001.{end}")
    assert "shard-00001" in refusal(TargetStore(folder).verify)
    write(folder)
    assert tree(folder) == before


@pytest.mark.parametrize("other", FOREIGN)
def test_shards_without_a_manifest_are_not_adopted(tmp_path, folder, other):
    expected = tree(write(tmp_path / "other", **other))
    (folder / "manifest.json").unlink()
    for path in set(folder.iterdir()):
        if path.name not in expected:  # a store of fewer shards leaves the others alone
            path.unlink()
    write(folder, **other)
    assert tree(folder) == expected


def test_own_shards_without_a_manifest_are_adopted(folder):
    before = tree(folder)
    (folder / "manifest.json").unlink()
    write(folder, make=lambda ids: pytest.fail("nothing to make"))
    assert tree(folder) == before


# --- refusals: damage


@pytest.mark.parametrize("name", ["manifest.json", "shard-00001.safetensors", "shard-00001.sha256"])
def test_a_flipped_bit_in_any_byte_is_refused_or_harmless(tmp_path, name):
    targets = {1: {"x": torch.tensor([0.25, 0.5])}, "b": {"x": torch.tensor([3, 1]), "y": torch.tensor(True)}}
    write(tmp_path, ids=[1, "b"], make=lambda ids: [targets[i] for i in ids], shard_size=1)
    content = (tmp_path / name).read_bytes()
    chance = random.Random(name)
    harmless = []
    for byte in range(len(content)):
        (tmp_path / name).write_bytes(flipped(content, 8 * byte + chance.randrange(8)))
        try:
            store = TargetStore(tmp_path, FINGERPRINT)
            found = {i: store[i] for i in store}
        except TargetStoreError as error:
            assert len(str(error).splitlines()) == 1
            continue
        harmless.append(byte)
        assert list(found) == list(targets)
        for image_id, target in targets.items():
            assert_same(found[image_id], target)
    # at most the file name behind the checksum, which readers of the store may well ignore
    assert all(name.endswith(".sha256") and byte >= 65 for byte in harmless)


@pytest.mark.parametrize("name", ["shard-00000.safetensors", "shard-00002.safetensors", "shard-00001.sha256"])
def test_a_flipped_bit_is_repaired(folder, name):
    before = tree(folder)
    chance = random.Random(name)
    for _ in range(40):
        (folder / name).write_bytes(flipped(before[name], chance.randrange(8 * len(before[name]))))
        write(folder)
        assert tree(folder) == before


def test_a_flipped_bit_of_the_manifest_stops_the_writer(folder):
    content = (folder / "manifest.json").read_bytes()
    chance = random.Random(0)
    for _ in range(100):
        (folder / "manifest.json").write_bytes(flipped(content, chance.randrange(8 * len(content))))
        before = tree(folder)
        assert "manifest.json is damaged" in refusal(lambda: write(folder))
        assert tree(folder) == before


@pytest.mark.parametrize(
    "content", [b"", b"{", b"{}", b"[]", b"[1]", b"3", b"null", b'"text"', b"\xff\xfe", b"\x80\x04."]
)
def test_a_manifest_of_something_else_is_refused(folder, content):
    (folder / "manifest.json").write_bytes(content)
    for use in (TargetStore, write):
        assert "manifest.json is damaged" in refusal(lambda use=use: use(folder))


def test_another_format_is_refused(folder):
    content = json.loads((folder / "manifest.json").read_text())
    del content["sha256"]
    content["format"] = 2
    checksum = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(content | {"sha256": checksum}))
    for use in (TargetStore, write):
        assert "format 2, this version reads format 1" in refusal(lambda use=use: use(folder))


@pytest.mark.parametrize(
    "change",
    [{"shard_size": 0}, {"shard_size": [2]}, {"ids": [1, 1]}, {"ids": [[1]]}, {"fingerprint": 3}, {"format": True}],
)
def test_a_forged_manifest_is_refused(folder, change):
    content = json.loads((folder / "manifest.json").read_text())
    del content["sha256"]
    content |= change
    checksum = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(content | {"sha256": checksum}))
    assert "manifest.json is damaged" in refusal(lambda: TargetStore(folder))


@pytest.mark.parametrize("keep", [0, 1, 8, 100, -8, -1])
def test_a_truncated_shard_is_refused_and_repaired(folder, keep):
    before = tree(folder)
    path = folder / "shard-00000.safetensors"
    path.write_bytes(before[path.name][:keep])
    store = TargetStore(folder)
    assert "shard-00000.safetensors is damaged, its checksum does not match" in refusal(lambda: store[7])
    assert_same(store[0], TARGETS[0])
    write(folder)
    assert tree(folder) == before


@pytest.mark.parametrize(
    ("name", "difference"),
    [
        ("manifest.json", "not a target store: it has no manifest.json"),
        ("shard-00001.sha256", "unfinished: 1 of 3 shards are missing"),
        ("shard-00001.safetensors", "shard-00001.safetensors cannot be read"),
    ],
)
def test_a_missing_file_is_refused_and_replaced(folder, name, difference):
    before = tree(folder)
    (folder / name).unlink()
    assert difference in refusal(lambda: TargetStore(folder).verify())
    write(folder)
    assert tree(folder) == before


@pytest.mark.parametrize("place", ["empty", "nowhere", "a file"])
def test_what_is_no_store_is_refused(tmp_path, place):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a file").write_text("hello")
    assert f"{place} is not a target store" in refusal(lambda: TargetStore(tmp_path / place))


@pytest.mark.parametrize("content", [b"", b"hello", b"\x05\0\0\0\0\0\0\0hello", save({"x": torch.ones(2)})])
def test_a_strange_file_with_its_checksum_is_refused_and_replaced(folder, content):
    before = tree(folder)
    path = folder / "shard-00000.safetensors"
    path.write_bytes(content)
    path.with_suffix(".sha256").write_text(f"{hashlib.sha256(content).hexdigest()}  {path.name}\n")
    assert "shard-00000.safetensors" in refusal(TargetStore(folder).verify)
    write(folder)
    assert tree(folder) == before


@pytest.mark.parametrize("content", ["", "\n", " \n"])
def test_an_empty_checksum_means_unfinished(folder, content):
    before = tree(folder)
    (folder / "shard-00002.sha256").write_text(content)
    assert "1 of 3 shards are missing" in refusal(lambda: TargetStore(folder))
    write(folder)
    assert tree(folder) == before


def test_an_unfinished_store_is_refused(tmp_path):
    write(tmp_path, rank=0, world_size=2)  # shards 0 and 2
    assert "unfinished: 1 of 3 shards are missing" in refusal(lambda: TargetStore(tmp_path))


# --- refusals: arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ids": [1, 2, 1]}, "ids must be unique"),
        ({"ids": ["a", "b", "a"]}, "ids must be unique"),
        ({"ids": [1, 2.5]}, r"ids must be int or str, got 2\.5"),
        ({"ids": [2, True]}, "ids must be int or str, got True"),
        ({"ids": ["a", None]}, "ids must be int or str, got None"),
        ({"shard_size": 0}, "shard_size must be an integer >= 1, got 0"),
        ({"shard_size": 2.0}, "shard_size must be an integer >= 1"),
        ({"rank": 2, "world_size": 2}, "rank 2 of 2"),
        ({"rank": -1}, "rank -1 of 1"),
        ({"world_size": 0}, "rank 0 of 0"),
        ({"fingerprint": {"rate": float("nan")}}, "fingerprint must hold JSON values"),
        ({"fingerprint": {"rate": float("inf")}}, "fingerprint must hold JSON values"),
        ({"fingerprint": {"model": object()}}, "fingerprint must hold JSON values"),
        ({"fingerprint": {"weights": torch.ones(2)}}, "fingerprint must hold JSON values"),
        ({"fingerprint": {(1, 2): 3}}, "fingerprint must hold JSON values"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        write(tmp_path / "store", **arguments)
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "store").exists()


def test_a_reader_asks_for_a_fingerprint_of_json(folder):
    with pytest.raises(ValueError, match="fingerprint must hold JSON values"):
        TargetStore(folder, {"rate": float("nan")})


@pytest.mark.parametrize("extra", [-2, -1, 1])
def test_make_must_yield_one_target_per_image(tmp_path, folder, extra):
    with pytest.raises(ValueError, match=f"make must yield one target per image: {2 + extra} for 2 images"):
        write(tmp_path / "other", make=lambda ids: [TARGETS[i] for i in [*ids, ids[0]][: len(ids) + extra]])
    assert tree(tmp_path / "other").keys() == {"manifest.json"}
    write(tmp_path / "other")
    assert tree(tmp_path / "other") == tree(folder)


# --- the bar


@pytest.fixture
def terminal(capsys, monkeypatch):
    """Standard error is one: elsewhere there are no bars."""
    monkeypatch.setattr("_pytest.capture.CaptureIO.isatty", lambda self: True)
    return capsys


@pytest.mark.parametrize(("rank", "world_size", "images"), [(0, 1, 5), (0, 2, 3), (1, 2, 2)])
def test_the_bar_counts_the_images_of_its_rank(tmp_path, terminal, rank, world_size, images):
    for done in (0, images):  # written, then found
        write(tmp_path, rank=rank, world_size=world_size, progress=True)
        out, err = terminal.readouterr()
        assert not out
        assert re.search(rf"^\rtargets: +{100 * done // images}%.* {done}/{images} .*image/s", err)


def test_the_bar_can_be_left_out(tmp_path, terminal):
    for _ in range(2):
        write(tmp_path, progress=False)
    TargetStore(tmp_path).verify()
    assert terminal.readouterr() == ("", "")


def test_verify_can_show_a_bar(folder, terminal):
    TargetStore(folder).verify(progress=True)
    assert re.search(r"^\rverify: +0%.* 0/3 ", terminal.readouterr().err)


# --- pickled copies hold no data


def test_a_pickled_store_is_small(tmp_path):
    write(tmp_path, ids=[1], make=lambda ids: [{"x": torch.zeros(10**5)}])
    store = TargetStore(tmp_path)
    store.verify()
    content = pickle.dumps(store)
    assert len(content) < 10_000
    assert pickle.loads(content)[1]["x"].shape == (10**5,)


# --- weights


def model_state():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.Linear(4, 4).bfloat16())
    return model.state_dict()  # num_batches_tracked has no dimension


def test_weights_have_the_checksum_of_their_names_types_shapes_and_bytes():
    # written out, because fingerprints outlive versions: an eight-byte 7, then 1.0 and -2.0 in four bytes each
    state = {"w": torch.tensor([1.0, -2.0]), "n": torch.tensor(7)}
    content = b"n torch.int64 ()\n" + b"\7" + bytes(7) + b"w torch.float32 (2,)\n" + b"\0\0\x80\x3f" + b"\0\0\0\xc0"
    assert state_dict_sha256(state) == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    "same",
    [
        lambda state: dict(reversed(state.items())),
        lambda state: {
            name: tensor.clone().requires_grad_(tensor.is_floating_point()) for name, tensor in state.items()
        },
        lambda state: state | {"0.weight": state["0.weight"].repeat(2, 1, 1, 1)[:3]},
        lambda state: state | {"2.weight": state["2.weight"].T.contiguous().T},
    ],
)
def test_equal_weights_have_equal_checksums(same):
    assert state_dict_sha256(same(model_state())) == state_dict_sha256(model_state())


@pytest.mark.parametrize(
    "other",
    [
        lambda state: {name.replace("0.", "3."): tensor for name, tensor in state.items()},
        lambda state: state | {"1.num_batches_tracked": torch.tensor(1)},
        lambda state: state | {"1.num_batches_tracked": torch.tensor([0])},
        lambda state: state | {"1.num_batches_tracked": torch.tensor(0.0, dtype=torch.float64)},  # the same bytes
        lambda state: state | {"1.running_mean": -state["1.running_mean"]},  # -0.0
        lambda state: state | {"0.weight": state["0.weight"].reshape(2, 3, 1, 1)},
        lambda state: state | {"2.weight": state["2.weight"].T},
        lambda state: state | {"2.weight": state["2.weight"].float()},
        lambda state: state | {"2.weight": state["2.weight"].view(torch.float16)},
        lambda state: state | {"2.weight": state["2.weight"].nextafter(torch.tensor(9.0).bfloat16())},
        lambda state: state | {"empty": torch.empty(0)},
        lambda state: dict(list(state.items())[1:]),
        lambda state: {},
    ],
)
def test_other_weights_have_another_checksum(other):
    assert state_dict_sha256(other(model_state())) != state_dict_sha256(model_state())
