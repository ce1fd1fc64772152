"""The target store among processes: killed and simultaneous writers, readers that were sent a copy, memory."""

import hashlib
import itertools
import json
import os
import pickle
import random
import shutil
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from forked_tools import KILLED, fork, run, wait
from torch.utils.data import DataLoader

from uncertainty_core.sampling.mc_dropout import derive_seed
from uncertainty_core.targets.store import TargetStore, TargetStoreError, write_targets

FINGERPRINT = {"weights": "c0ffee", "num_samples": 10, "rate": 0.5}
KILLS = 6
# Images, images per shard, seconds to make one, values in one. A writer that sleeps is mostly killed while it makes
# targets, one that does not while it writes files.
SMALL = {"images": 3, "shard_size": 2, "sleep": 0.0, "values": 4}
SLOW = {"images": 30, "shard_size": 2, "sleep": 0.004, "values": 500}
LARGE = {"images": 20, "shard_size": 2, "sleep": 0.0, "values": 50_000}


def targets_of(image_id, values):
    generator = torch.Generator().manual_seed(derive_seed(0, image_id, 0))
    return {"mean": torch.rand(values, generator=generator), "std": torch.rand(values, generator=generator).half()}


def make(ids, sleep, values, meet=()):
    if meet:
        wait_for_each_other(*map(Path, meet))
    for image_id in ids:
        time.sleep(sleep)
        yield targets_of(image_id, values)


def wait_for_each_other(mine, other):
    mine.touch()
    deadline = time.monotonic() + 20
    while not other.exists():
        assert time.monotonic() < deadline, f"{other} never came"
        time.sleep(0.001)


def write(folder, images, shard_size, sleep, values, rank=0, world_size=1, meet=(), crash=None):
    if crash:
        die_at(**crash)
    ids = [f"img{i}" for i in range(images)]
    drawn = partial(make, sleep=sleep, values=values, meet=meet)
    write_targets(folder, ids, drawn, FINGERPRINT, shard_size, rank, world_size)


def assert_right(store, values):
    for image_id, target in store.items():
        expected = targets_of(image_id, values)
        assert target.keys() == expected.keys()
        assert all(torch.equal(target[name], expected[name]) for name in expected)


# --- what the processes do


def die_at(call, index, when):
    """Let this process die "before" or "after" the index-th time it calls `call`, or leaving half a file ("torn")."""
    owner = {"replace": os, "fsync": os, "unlink": Path}[call]
    real = getattr(owner, call)
    count = itertools.count()

    def fatal(*args, **kwargs):
        mine = next(count) == index
        if mine and when == "torn":
            os.ftruncate(args[0], os.fstat(args[0]).st_size // 2)
        if mine and when != "after":
            os.kill(os.getpid(), -KILLED)
        result = real(*args, **kwargs)
        if mine:
            os.kill(os.getpid(), -KILLED)
        return result

    setattr(owner, call, fatal)


def read_copy(pickled, values):
    """Use a store that came as bytes."""
    assert_right(pickle.loads(Path(pickled).read_bytes()), values)


def read_one(folder, other, answer):
    """Note by how many bytes the first access to a store makes this process grow, once another has been read."""

    def memory():
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return {name: 1024 * int(status[name].split()[0]) for name in ("RssAnon", "VmHWM")}

    TargetStore(other)["img1"]  # a forked process maps the pages of libraries again when it first needs them
    before = memory()
    small = TargetStore(folder)["img1"]["small"]
    growth = {name: bytes_after - before[name] for name, bytes_after in memory().items()}
    Path(answer).write_text(json.dumps({"small": small.tolist(), **growth}))


# --- the tests' side


@pytest.fixture
def quiet(tmp_path):
    """Writes a store that nobody disturbs: its files, and the seconds that took."""

    def undisturbed(plan):
        begin = time.monotonic()
        assert run(partial(write, tmp_path / "quiet", **plan), folder=tmp_path).code == 0
        return tree(tmp_path / "quiet"), time.monotonic() - begin

    return undisturbed


def tree(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def finished_shards(folder, damaged=None):
    """Shards that have a checksum; each must match it. Inode and mtime tell whether one was written again."""
    finished = {}
    for checksum in folder.glob("*.sha256"):
        shard = checksum.with_suffix(".safetensors")
        if shard.name == damaged:
            continue
        assert checksum.read_text() == f"{hashlib.sha256(shard.read_bytes()).hexdigest()}  {shard.name}\n"
        finished[shard.name] = shard.stat().st_ino, shard.stat().st_mtime_ns
    return finished


@pytest.mark.parametrize("plan", [SLOW, LARGE], ids=["making", "writing"])
def test_kills_at_random_moments_leave_no_trace(quiet, tmp_path, plan):
    expected, life = quiet(plan)
    num_shards = -(-plan["images"] // plan["shard_size"])
    moments = random.Random(f"{plan}")
    kills, finished = 0, {}
    folder = tmp_path / "0"
    while kills < KILLS:
        world_size = moments.choice((1, 2, 3))
        writers = [
            fork(partial(write, folder, rank=rank, world_size=world_size, **plan), folder=tmp_path)
            for rank in range(world_size)
        ]
        # from at once to a tenth of its life, so that all kills together spread over the whole of it
        time.sleep(moments.choice([0, 0.002, life / 40, life / 10]) * moments.random())
        for writer in writers:
            writer.kill()
            writer.join()
        codes = {writer.exitcode for writer in writers}
        assert codes <= {0, KILLED}
        kills += KILLED in codes
        before, finished = finished, finished_shards(folder)
        assert before.items() <= finished.items()
        if len(finished) == num_shards and kills < KILLS:  # done too soon: the other kills hit a new one
            assert tree(folder) == expected
            folder, finished = tmp_path / str(kills), {}
    assert run(partial(write, folder, **plan), folder=tmp_path).code == 0
    assert finished.items() <= finished_shards(folder).items()
    assert tree(folder) == expected


@pytest.mark.parametrize("damaged", [None, "shard-00001.safetensors"], ids=["writing", "repairing"])
@pytest.mark.parametrize(
    ("call", "when"),
    [
        ("replace", "before"),
        ("replace", "after"),
        ("fsync", "torn"),
        ("fsync", "after"),
        ("unlink", "before"),
        ("unlink", "after"),
    ],
)
def test_a_crash_at_any_step_leaves_no_trace(quiet, tmp_path, call, when, damaged):
    expected, _ = quiet(SMALL)
    for index in itertools.count():
        folder = tmp_path / str(index)
        if damaged:
            shutil.copytree(tmp_path / "quiet", folder)
            content = (folder / damaged).read_bytes()
            (folder / damaged).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        crashing = partial(write, folder, crash={"call": call, "index": index, "when": when}, **SMALL)
        outcome = run(crashing, folder=tmp_path)
        if outcome.code == 0:
            break
        assert outcome.code == KILLED, outcome.err
        finished = finished_shards(folder, damaged)
        try:  # what is left is refused, or right
            store = TargetStore(folder, FINGERPRINT)
            store.verify()
        except TargetStoreError as error:
            assert "\n" not in str(error)
        else:
            assert_right(store, SMALL["values"])
        write(folder, **SMALL)
        assert finished.items() <= finished_shards(folder).items()
        assert tree(folder) == expected
    # each file goes through one step of each kind; a repair concerns a shard and its checksum
    files = 2 if damaged else len(expected)
    assert index >= (1 if call == "unlink" else files)


def test_ranks_write_at_the_same_time(quiet, tmp_path):
    expected, _ = quiet(SLOW)
    here = [tmp_path / "rank 0 is here", tmp_path / "rank 1 is here"]
    writers = [
        fork(partial(write, tmp_path / "both", rank=rank, world_size=2, meet=meet, **SLOW), folder=tmp_path)
        for rank, meet in enumerate([here, here[::-1]])
    ]
    assert [wait(writer, tmp_path).code for writer in writers] == [0, 0]
    assert tree(tmp_path / "both") == expected


@pytest.mark.parametrize("touched", [False, True])
def test_a_copy_works_in_another_process(tmp_path, touched):
    write(tmp_path / "store", **SMALL)
    store = TargetStore(tmp_path / "store")
    if touched:
        store.verify()
    (tmp_path / "pickled").write_bytes(pickle.dumps(store))
    outcome = run(read_copy, tmp_path / "pickled", SMALL["values"], folder=tmp_path)
    assert outcome.code == 0, outcome.err
    assert_right(store, SMALL["values"])


@pytest.mark.parametrize("touched", [False, True])
def test_loader_workers_read_it(tmp_path, touched):
    write(tmp_path / "store", **SMALL)
    store = TargetStore(tmp_path / "store")
    if touched:  # the workers inherit open shards
        store.verify()
    loader = DataLoader(store, sampler=store.ids, batch_size=None, num_workers=2, multiprocessing_context="fork")
    for _ in range(2):
        assert_right(dict(zip(store.ids, loader, strict=True)), SMALL["values"])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to see the memory")
def test_reading_one_image_does_not_load_its_shard(tmp_path):
    def large(ids):
        for i, _ in enumerate(ids):
            yield {"large": torch.zeros(2**20), "small": torch.tensor([i])}

    write_targets(tmp_path / "store", [f"img{i}" for i in range(16)], large, {})
    shard_bytes = (tmp_path / "store/shard-00000.safetensors").stat().st_size
    assert shard_bytes > 64 * 2**20
    write(tmp_path / "other", **SMALL)
    outcome = run(read_one, tmp_path / "store", tmp_path / "other", tmp_path / "answer", folder=tmp_path)
    assert outcome.code == 0, outcome.err
    answer = json.loads((tmp_path / "answer").read_text())
    assert answer["small"] == [1]
    assert answer["RssAnon"] < shard_bytes / 8
    assert answer["VmHWM"] < shard_bytes / 2  # the highest it ever was, shared pages included
