"""The store: one SQLite file that holds every study, trial and learning curve."""

from lrwd_sweep.store.store import Store, check_name, open_store
from lrwd_sweep.store.studies import StudyRecord
from lrwd_sweep.store.summary import StudySummary
from lrwd_sweep.store.trials import Lane

__all__ = ["Lane", "Store", "StudyRecord", "StudySummary", "check_name", "open_store"]
