"""Train, evaluate and explain a model. The cells (`# %%`) run in any editor that knows them, or as a script."""

# %% Histories: simulated here. `aurum train --help` lists the files that can be read instead.
import itertools
import os

import numpy as np

from aurum.prediction.model.features import features_of_windows, steps_of, window_of
from aurum.prediction.training.evaluation import evaluate_model
from aurum.prediction.training.train import TrainingOptions, train
from aurum_sim.machine_types import MACHINE_TYPES
from aurum_sim.plant_model import run_to_failure

machines = int(os.environ.get("EXAMPLE_MACHINES", "24"))
runs = run_to_failure(MACHINE_TYPES["pump"], machines, seed=3)
print(f"{len(runs)} runs, {sum(run.failed for run in runs)} of them until a failure")
print("sensors:", ", ".join(runs[0].columns))

# %% Hold out whole machines: rows of one machine resemble each other too much to judge a model by.
by_machine = {machine: list(group) for machine, group in itertools.groupby(runs, key=lambda run: run.machine)}
names = sorted(by_machine)
held_out = [run for name in names[::4] for run in by_machine[name]]
training = [run for name in names if name not in names[::4] for run in by_machine[name]]

# %% Train. The card says what the model was trained on and how good it is by cross-validation.
rounds = int(os.environ.get("EXAMPLE_ROUNDS", "140"))
model, files = train("pump", training, "simulated pumps", TrainingOptions(rounds=rounds))
print(f"version {model.card.version}, {len(model.spec.names)} features, files: {', '.join(sorted(files))}")

# %% Evaluate on the machines that were held out.
evaluation, _ = evaluate_model(model, held_out)
for name, value in evaluation.metrics.model_dump().items():
    if value is not None:
        print(f"{name:24} {value:.4g}")

# %% Explain the prediction at the last reading of a machine.
run = held_out[-1]
columns = {name: (run.timestamps, run.columns[name]) for name in model.spec.queried if name in run.columns}
row = features_of_windows([window_of(steps_of(columns, model.spec))])
prediction = model.predict(row)
if prediction.risk is not None:
    print(f"{run.machine_id}: risk {prediction.risk[0]:.2f}")
contributions = model.contributions(row[0])
for index in np.argsort(-np.abs(contributions), kind="stable")[:5]:
    print(f"{model.spec.names[index]:40} {contributions[index]:+.3f}")
