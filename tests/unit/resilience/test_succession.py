"""Which pipeline continues as which: by the calls that they have in common."""

from hypothesis import given
from hypothesis import strategies as st

from aurum.resilience import ErrorClassifier, PipelineRegistry, Policy, PolicyDocument
from aurum.resilience.succession import succession
from tests.support.resilience import Clock


def test_pipeline_continues_where_most_of_its_calls_are() -> None:
    plan = succession([("a", "x"), ("a", "y"), ("a", "y"), ("b", "x"), ("c", "z")])
    assert plan.continues == {"y": "a", "x": "b", "z": "c"}
    assert plan.sources == {"x": ["a", "b"], "y": ["a"], "z": ["c"]}
    assert plan.parts == {"a": 2, "b": 1, "c": 1}
    assert plan.rearranged == {"a", "b"}


def test_own_key_decides_between_equal_parts() -> None:
    assert succession([("a", "x"), ("a", "a")]).continues == {"a": "a"}
    assert succession([("a", "a"), ("b", "a")]).sources == {"a": ["a", "b"]}
    assert succession([("b", "a"), ("a", "a")]).sources == {"a": ["a", "b"]}
    assert succession([("b", "x"), ("a", "x")]).continues == {"x": "b"}


def test_exchanged_patterns_follow_their_calls() -> None:
    plan = succession([("a", "b"), ("b", "a")])
    assert plan.continues == {"b": "a", "a": "b"}
    assert plan.rearranged == set()


_KEYS = st.sampled_from("abcd")


@given(st.lists(st.tuples(_KEYS, _KEYS), max_size=20))
def test_succession_is_one_to_one_and_complete(moves: list[tuple[str, str]]) -> None:
    plan = succession(moves)
    assert len(set(plan.continues.values())) == len(plan.continues)
    assert plan.sources.keys() == {after for _, after in moves}
    assert all(before in plan.sources[after] for after, before in plan.continues.items())
    assert {(before, after) for after, sources in plan.sources.items() for before in sources} == set(moves)
    for before, after in moves:  # either goes on, or its place or its successor is taken
        assert after in plan.continues or before in plan.continues.values()
    if all(before == after for before, after in moves):
        assert all(before == after for before, after in plan.continues.items())
        assert plan.rearranged == set()


_METHODS = ("Read", "ReadAll", "Write", "List")
_DOCUMENTS = st.lists(
    st.sampled_from(["api/store/*", "*/store/R*", "api/*/Read", "api/store/Write", "api/store/?*", "*/*/*"]),
    unique=True,
    max_size=4,
)


@given(st.lists(st.tuples(_DOCUMENTS, st.sampled_from(_METHODS), st.integers(0, 5)), max_size=8))
def test_reloads_neither_make_retries_nor_share_names(history: list[tuple[list[str], str, int]]) -> None:
    clock = Clock()
    named: dict[str, object] = {}
    pipelines = PipelineRegistry(
        PolicyDocument(),
        Policy(target="*/*/*"),
        clock=clock,
        on_new=lambda pipeline: named.__setitem__(pipeline.name, pipeline),
        on_gone=named.__delitem__,
    )
    for targets, method, earned in history:
        pipeline = pipelines.pipeline_for("api", "store", method, ErrorClassifier())
        for _ in range(earned):
            pipeline.budget.deposit()
        tokens = sum(each.budget.tokens for each in pipelines)
        pipelines.apply(PolicyDocument(policies=tuple(Policy(target=target) for target in targets)))
        assert sum(each.budget.tokens for each in pipelines) <= tokens + 1e-9
        assert named == {each.name: each for each in pipelines}
        assert len(named) == len(list(pipelines))
        for each in pipelines:
            parts = (each, each.budget, each.breaker, each.limit, each.retry)
            assert {part.name for part in parts if part} == {each.name}
