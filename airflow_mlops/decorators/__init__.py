"""Task decorators, one module per capability: `@task.train`."""
