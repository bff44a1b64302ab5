from sonolens import cost
from sonolens.pipeline import StageSpec

SPEC = StageSpec("toy-make", "python src/stage.py toy make", (), (), (), (), ())


def test_the_cost_of_a_stage_belongs_to_what_it_made(tmp_path):
    assert cost.of(tmp_path, SPEC, "one") is None
    cost.note(tmp_path, SPEC, "one", 1.25)
    found = cost.of(tmp_path, SPEC, "one")
    assert found["duration_s"] == 1.25
    assert 10 < found["peak_memory_mb"] < 1e5
    assert cost.of(tmp_path, SPEC, "another") is None
