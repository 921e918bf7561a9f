"""The store: one SQLite file that holds all studies, trials and learning curves."""

from lrwd_sweep.store.store import Store, StudySummary, check_name, open_store, preview_store
from lrwd_sweep.store.studies import StudyRecord
from lrwd_sweep.store.trials import Lane

__all__ = ["Lane", "Store", "StudyRecord", "StudySummary", "check_name", "open_store", "preview_store"]
