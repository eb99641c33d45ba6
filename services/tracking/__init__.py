"""The MLflow server of a cluster: reads settings, brings its database up to date, and starts `mlflow server`."""
