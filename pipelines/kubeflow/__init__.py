"""What deerfield asks of a Kubeflow Pipelines server: uploads, runs and schedules."""
