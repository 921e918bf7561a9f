"""Train a study's missing lanes and store them.

Runner            begins studies in the store, loads torch, reports to the terminal
StudyLoop         cells to do → packs → events → one transaction per finished pack
Execution         plans packs for this machine or a cluster, submits them, trains lost ones again in halves
CommandExecution  likewise, of a user's command or function: a lane is a pack
executors         threads, processes and Ray train jobs by `engine.train_pack`; commands run in processes
"""
