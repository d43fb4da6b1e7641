"""The operator: resilience and telemetry policies as Kubernetes resources, followed to each pod.

observed → planning (merging, rollout, conditions) → kubernetes. What is to be is worked out anew from what is there, by
pure functions; a killed operator goes on where it was.
"""
