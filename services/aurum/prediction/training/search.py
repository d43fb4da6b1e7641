"""Chooses by cross-validation how to train: which features, which share of them, how many trees, how much age counts.

Splits are by machine. If lives follow each other in time, the later ones are judged by models of the earlier ones. One
change is tried at a time, beside the best so far, and kept if it lowers the error by more than chance usually does.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import lightgbm as lgb
import numpy as np

from aurum.prediction.model import card as parts
from aurum.prediction.training.age_fit import fit_age_blend
from aurum.prediction.training.boosting import TRIAL_SPEED, Binned, binned, fit_and_validate, raw_scores
from aurum.prediction.training.specification import TrainingOptions
from aurum.prediction.training.table import Bools, Floats, Table
from aurum.prediction.training.task import Recipe, Task
from aurum.prediction.training.validation import folds_of, split_by_time
from aurum.prediction.training.wear_index_fit import LEAST_SENSORS, thinned
from aurum.readings.history import Run

_FOLDS = 3
_ROWS, _ROWS_WITH_BUDGET = 12_000, 30_000  # on which trials are trained and judged
_LEAST_GAIN = 0.01  # share by which a change must lower the error; less is within chance
_LEAST_ROUNDS = 5
_PREPARED = 2  # sets of features whose rows are kept for further trials: those of the best recipe and of the last one
_MUCH_SMALLER = 0.6  # share of the trees; if about as many are best on fewer rows, all are used on all rows
_AGE_WEIGHTS = (0.25, 0.5, 0.75, 1.0)
_LEAST_EARLIER, _LEAST_LATER = 6, 3  # lives

Note = Callable[[float, str], None]


@dataclass(frozen=True, slots=True)
class _Trial:
    """The result of one recipe: its error, the best number of trees, and the predictions of each split."""

    error: float
    rounds: int
    predicted: tuple[Floats, ...]


def choose_recipe(task: Task, options: TrainingOptions, progress: Note) -> tuple[Recipe, parts.SearchPart | None]:
    """Returns how to train, and what was tried; None if nothing was.

    Without a budget the result depends only on the data and the options.
    """
    recipe = Recipe(options)
    if not options.search:
        return recipe, None
    search = _Search.create(task, options)
    if search is None:
        return recipe, None
    began = time.monotonic()
    progress(0.0, "trials: as usual")
    best = search.trial(recipe)
    took = time.monotonic() - began
    trials = [parts.Trial(name="as usual", error=round(best.error, 5), chosen=True)]
    skipped: list[str] = []
    changes = _changes(options, lives=task.target.left is not None, sensors=len(task.spec.sensors))
    for number, (name, change) in enumerate(changes.items()):
        if options.budget is not None and time.monotonic() - began + took > options.budget:
            skipped.append(name)
            continue
        progress((number + 1) / (len(changes) + 1), f"trials: {name}")
        before = time.monotonic()
        changed = change(recipe)
        tried = search.trial(changed)
        took = max(took, time.monotonic() - before)
        better = tried.error < (1 - _LEAST_GAIN) * best.error
        trials.append(parts.Trial(name=name, error=round(tried.error, 5), chosen=better))
        if better:
            recipe, best = changed, tried
    if not search.is_thinned or best.rounds < _MUCH_SMALLER * options.rounds:
        recipe = replace(recipe, options=replace(recipe.options, rounds=best.rounds))
    if search.task.target.left is not None:
        weight, blended = search.age_weight(best, search.task.target.left)
        recipe = replace(recipe, age_weight=weight)
        trials += blended
    chosen = {
        "feature_fraction": recipe.options.feature_fraction,
        "trees": recipe.options.rounds,
        "wear_index": float(recipe.wear_index),
        "deviations": float(recipe.deviations),
        "age_weight": recipe.age_weight,
        "seeds": recipe.options.seeds,
    }
    measure = "RMSE of the RUL up to the cap" if task.target.left is not None else "logarithmic loss of the risk"
    return recipe, parts.SearchPart(
        protocol=search.protocol,
        measure=measure,
        trials=trials,
        chosen=chosen,
        seconds_allowed=options.budget,
        not_tried=skipped,
    )


def _changes(options: TrainingOptions, *, lives: bool, sensors: int) -> dict[str, Callable[[Recipe], Recipe]]:
    """Returns the changes to try, in order, by name."""
    changes: dict[str, Callable[[Recipe], Recipe]] = {}
    if lives and sensors >= LEAST_SENSORS:
        changes["wear index"] = lambda recipe: replace(recipe, wear_index=True)
    if lives:
        changes["deviations from the usual"] = lambda recipe: replace(recipe, deviations=True)
    for share in (1.0, 0.25):
        changes[f"{share:.0%} of the features for each tree"] = lambda recipe, share=share: replace(  # type: ignore[misc]
            recipe, options=replace(recipe.options, feature_fraction=share)
        )
    if options.budget is not None:
        changes["3 seeds"] = lambda recipe: replace(recipe, options=replace(recipe.options, seeds=3))
    return changes


@dataclass(frozen=True, slots=True)
class _Prepared:
    """The rows of one split, with the features of a recipe.

    Attributes:
        fitted: The rows to fit to.
        judged: The rows to judge by, in the form in which they are validated.
        unseen: Their features[row, feature].
        chosen: Which rows are judged.
    """

    fitted: Binned
    judged: lgb.Dataset
    unseen: Floats
    chosen: Bools


@dataclass(frozen=True, slots=True)
class _Search:
    """The rows and splits on which recipes are tried."""

    task: Task
    splits: tuple[tuple[Bools, Bools], ...]
    protocol: str
    threads: int
    is_thinned: bool
    prepared: dict[tuple[bool, bool], list[_Prepared]] = field(default_factory=dict)

    @classmethod
    def create(cls, task: Task, options: TrainingOptions) -> "_Search | None":
        """Returns the search, or None if the rows cannot be split into parts with and without failures."""
        part, kept = thinned(task.table, _ROWS if options.budget is None else _ROWS_WITH_BUDGET)
        target = task.target
        outcomes = replace(
            target,
            left=None if target.left is None else target.left[kept],
            soon=target.soon[kept],
            known=target.known[kept],
        )
        usable = outcomes.known if outcomes.left is None else ~np.isnan(outcomes.left)
        splits, protocol = _splits(task.runs, part, options.seed)
        splits = [(fitted & usable, judged & usable) for fitted, judged in splits]
        truths = outcomes.soon if outcomes.left is None else outcomes.left
        if not splits or any(
            not judged.any() or not fitted.any() or np.ptp(truths[fitted].astype(float)) == 0
            for fitted, judged in splits
        ):
            return None
        return cls(
            replace(task, table=part, target=outcomes),
            tuple(splits),
            protocol,
            options.threads,
            len(part) < len(task.table),
        )

    def trial(self, recipe: Recipe) -> _Trial:
        """Returns the result of a recipe over all splits."""
        with ThreadPoolExecutor(max(1, min(self.threads, len(self.splits)))) as threads:
            prepared = self._prepare(recipe, threads)
            results = list(threads.map(lambda split: self._fit(recipe, split), prepared))
        longest = max(len(losses) for _, losses, _ in results)
        # A fit that was stopped early would hardly have become better
        whole = np.array([np.append(losses, np.full(longest - len(losses), losses[-1])) for _, losses, _ in results])
        sizes = np.array([int(judged.sum()) for _, judged in self.splits], dtype=np.float64)
        mean = sizes @ whole / sizes.sum()
        rounds = max(int(mean.argmin()) + 1, min(_LEAST_ROUNDS, longest))
        error = float(mean[rounds - 1])
        predicted = tuple(predict(rounds) for predict, _, _ in results)
        if self.task.target.left is not None:
            error = self._rmse(predicted, self.task.target.left)
        return _Trial(error, rounds * TRIAL_SPEED, predicted)

    def age_weight(self, best: _Trial, left: Floats) -> tuple[float, list[parts.Trial]]:
        """Returns the weight of the RUL by age alone with the least error, and what was tried."""
        by_age: list[Floats] = []
        for fitted, judged in self.splits:
            blend = fit_age_blend(self.task.table, left, fitted, 1.0)
            if blend is None:
                return 0.0, []
            by_age.append(blend(np.zeros(int(judged.sum())), self.task.table.features[judged, 0]))
        chosen, error = 0.0, best.error
        errors = []
        for weight in _AGE_WEIGHTS:
            mixed = tuple(
                (1 - weight) * trees + weight * ages for trees, ages in zip(best.predicted, by_age, strict=True)
            )
            errors.append(self._rmse(mixed, left))
            if errors[-1] < (1 - _LEAST_GAIN) * error:
                chosen, error = weight, errors[-1]
        return chosen, [
            parts.Trial(name=f"age alone with weight {weight:g}", error=round(each, 5), chosen=weight == chosen)
            for weight, each in zip(_AGE_WEIGHTS, errors, strict=True)
        ]

    def _rmse(self, predicted: Sequence[Floats], left: Floats) -> float:
        errors = [part - left[judged] for part, (_, judged) in zip(predicted, self.splits, strict=True)]
        return float(np.sqrt(np.mean(np.concatenate(errors) ** 2)))

    def _prepare(self, recipe: Recipe, threads: ThreadPoolExecutor) -> list[_Prepared]:
        """Returns the rows of each split with the features of a recipe, and keeps the latest of them."""
        key = recipe.wear_index, recipe.deviations
        found = self.prepared.pop(key, None)
        if found is None:
            found = list(threads.map(lambda split: self._rows_of(recipe, *split), self.splits))
        while len(self.prepared) >= _PREPARED:
            del self.prepared[next(iter(self.prepared))]
        self.prepared[key] = found  # the latest one is the last
        return found

    def _rows_of(self, recipe: Recipe, fitted: Bools, judged: Bools) -> _Prepared:
        left = self.task.target.left
        features = self.task.features(recipe.derived(self.task, fitted))
        values = self.task.target.soon.astype(np.float64) if left is None else left
        rows = binned(features[fitted], recipe.options)
        rows.data.set_label(values[fitted])
        unseen = features[judged]
        return _Prepared(rows, rows.data.create_valid(unseen, values[judged]), unseen, judged)

    def _fit(self, recipe: Recipe, split: _Prepared) -> tuple[Callable[[int], Floats], Floats, Bools]:
        """Returns a function from the number of trees to the predictions for the judged rows, and the losses."""
        left = self.task.target.left
        objective = "binary" if left is None else "regression"
        models = []
        curves = []
        for seed in range(recipe.options.seeds):
            options = replace(recipe.options, seed=recipe.options.seed + seed)
            model, losses = fit_and_validate(split.fitted, split.judged, objective, options)
            models.append(model)
            curves.append(losses)
        shortest = min(map(len, curves))

        def predict(rounds: int) -> Floats:
            scores = np.mean([raw_scores(model, split.unseen, rounds) for model in models], axis=0)
            return np.asarray(scores if left is None else np.clip(scores, 0.0, self.task.target.cap))

        return predict, np.mean([losses[:shortest] for losses in curves], axis=0), split.chosen


def _splits(runs: Sequence[Run], table: Table, seed: int) -> tuple[list[tuple[Bools, Bools]], str]:
    """Returns pairs of rows to fit to and to judge by, and how they were made."""
    by_time = split_by_time([int(run.timestamps[0]) for run in runs], [int(run.timestamps[-1]) for run in runs])
    if by_time is not None:
        before, after = by_time
        failed = [sum(runs[index].failed for index in part) for part in (before, after)]
        if failed[0] >= _LEAST_EARLIER and failed[1] >= _LEAST_LATER:
            return [(np.isin(table.run, before), np.isin(table.run, after))], (
                f"trained on {len(before)} lives that had ended before the other {len(after)} began"
            )
    group = table.group if len(np.unique(table.group)) >= _FOLDS else table.run
    count = min(_FOLDS, len(np.unique(group)))
    if count < 2:
        return [], ""
    fold = folds_of(group, seed + 1, count)
    by = "machine" if group is table.group else "run"
    return [(fold != each, fold == each) for each in range(count)], f"{count}-fold cross-validation by {by}"
