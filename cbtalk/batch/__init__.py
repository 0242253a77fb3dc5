"""Many renders: a manifest of jobs, a ledger that survives anything, workers that are replaced when they die."""

from cbtalk.batch.check import faults_of
from cbtalk.batch.job import Job
from cbtalk.batch.ledger import Entry, read_ledger
from cbtalk.batch.manifest import pairs, read_manifest
from cbtalk.batch.run import BatchOptions, Summary, run_batch
from cbtalk.csv_rows import Fault

__all__ = [
    "BatchOptions",
    "Entry",
    "Fault",
    "Job",
    "Summary",
    "faults_of",
    "pairs",
    "read_ledger",
    "read_manifest",
    "run_batch",
]
