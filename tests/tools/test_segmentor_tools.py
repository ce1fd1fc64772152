"""Help and mistakes of the segmentors' tools are answered before any framework is imported."""

from light_tools import HEAVY, ROOT, endings

STUDENT = "quick/streets_student.py"
COMMANDS = {
    "train_seg": [
        (["nope.py"], "error: config 'nope.py' is neither a file, nor one of"),
        (["ddn_R50.yaml"], "error: config 'ddn_R50.yaml' is neither a file, nor one of"),
        (["broken.py"], "error: broken.py, line 2, is not Python: "),
        ([STUDENT, "--cfg-options", "a.b"], "argument --cfg-options: 'a.b' is not KEY=VALUE"),
        ([STUDENT, "--launcher", "torchrun"], "argument --launcher: invalid choice: 'torchrun'"),
        ([STUDENT, "--threads", "0"], "error: --threads must be at least 1"),
    ],
    "test_seg": [([STUDENT, "none.pth"], "error: there is no checkpoint none.pth")],
    "train_ensemble": [([STUDENT, "--members", "1"], "error: --members must be at least 2, got 1")],
    "distill_segmentor": [
        ([STUDENT, "--member-config", "no"], "error: config 'no' is neither a file, nor one of"),
        (
            [STUDENT, "--member-config", "no", "--calibrators", "spline"],
            "no calibrator of class probabilities 'spline'",
        ),
    ],
    "predict_seg": [
        ([STUDENT, "--images", "nowhere", "--output", "o"], "error: there is no folder and no image nowhere"),
        ([STUDENT, "--images", ".", "--output", "o", "--level", "1"], "error: --level must lie in [0, 1), got 1.0"),
    ],
    "benchmark_segmentor": [
        ([STUDENT, STUDENT], "error: each config must have a name of its own"),
        ([STUDENT, "--checkpoints", "a", "b"], "error: --checkpoints names 2 files for 1 configs"),
        ([STUDENT, "--runs", "1"], "error: --runs must be at least 2"),
    ],
    "check_cityscapes": [([], "error: the following arguments are required: data_root")],
    "make_street_scenes": [(["folder", "--train", "many"], "argument --train: invalid int value: 'many'")],
}


def test_no_framework_is_imported_for_help_and_mistakes(tmp_path):
    (tmp_path / "broken.py").write_text("model = dict(\n  type='EncoderDecoder' backbone=1)\n")
    commands, expected = [], []
    for name, mistakes in COMMANDS.items():
        for arguments, message in [(["--help"], None), *mistakes]:
            commands.append([ROOT / "tools" / f"{name}.py", *arguments])
            expected.append(message)
    outcomes = endings(commands, tmp_path, (*HEAVY, "numpy"))
    for (code, out, err, heavy), arguments, message in zip(outcomes, commands, expected, strict=True):
        assert not heavy, arguments
        if message is None:
            # that of several tasks explains one after the other
            assert code == 0 and out.startswith(("usage: ", "--task ")) and err == ""
        else:
            assert (code, out) == (2, ""), arguments
            assert message in err and "Traceback" not in err
    assert {path.name for path in tmp_path.iterdir()} == {"broken.py", "out.txt", "err.txt"}  # no folder is made
