"""Recovery after an assignment of partitions: state index, results and attempts that a crash left incomplete."""
