"""The store: one SQLite file that holds every study, trial and learning curve."""

from lrwd_sweep.store.store import Store, StudyRecord, open_store
from lrwd_sweep.store.summary import StudySummary
from lrwd_sweep.store.trials import Lane

__all__ = ["Lane", "Store", "StudyRecord", "StudySummary", "open_store"]
