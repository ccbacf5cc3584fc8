"""The Faust app and its consumer: the only place that uses Faust's internals."""
