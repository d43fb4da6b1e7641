"""The operator: resilience and telemetry policies as Kubernetes resources, distributed to each pod.

observed → planning (merging, rollout, conditions) → kubernetes. Pure functions derive the desired state anew from the
observed state, so a restarted operator continues where it stopped.
"""
