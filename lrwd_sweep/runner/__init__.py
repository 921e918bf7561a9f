"""Train a study's missing lanes and store them.

Runner      begins studies in the store, loads torch, reports to the terminal
StudyLoop   cells to do → packs → events → one transaction per finished pack
Execution   loads data, plans packs for this machine, submits them, trains lost ones again in halves
Executor    trains jobs in threads or processes, by `engine.train_pack`
"""
