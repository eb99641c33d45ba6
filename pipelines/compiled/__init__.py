"""The pipelines as graphs of components, and as the packages that Kubeflow takes."""
