BEGIN TRANSACTION;
CREATE TABLE comparisons (
            id INTEGER NOT NULL PRIMARY KEY,
            names JSON NOT NULL
        , checksum BIGINT NOT NULL DEFAULT 0);
INSERT INTO "comparisons" VALUES(1,'["digits-adamw"]',2954417787751659952);
INSERT INTO "comparisons" VALUES(2,'["digits-adam"]',6993922821978314388);
INSERT INTO "comparisons" VALUES(3,'["digits-adam", "digits-adamw"]',-1078794183287317308);
CREATE TABLE curves (
            trial_id INTEGER NOT NULL,
            name VARCHAR NOT NULL,
            "values" BLOB NOT NULL,
            PRIMARY KEY (trial_id, name),
            FOREIGN KEY (trial_id) REFERENCES trials (id) ON DELETE CASCADE
        );
INSERT INTO "curves" VALUES(1,'val_loss',X'66666666666602409A9999999999F13F9A9999999999B93F');
INSERT INTO "curves" VALUES(1,'train_loss',X'9A99999999990140000000000000F03F111111111111A13F');
INSERT INTO "curves" VALUES(2,'val_loss',X'6666666666660240');
CREATE TABLE drivers (
            study_id INTEGER NOT NULL PRIMARY KEY,
            host VARCHAR NOT NULL,
            pid INTEGER NOT NULL,
            boot VARCHAR NOT NULL,
            started BIGINT NOT NULL,
            since VARCHAR NOT NULL,
            seen DOUBLE NOT NULL,
            FOREIGN KEY (study_id) REFERENCES studies (id) ON DELETE CASCADE
        );
CREATE TABLE lrwd_sweep_schema (version INTEGER NOT NULL PRIMARY KEY);
INSERT INTO "lrwd_sweep_schema" VALUES(1);
INSERT INTO "lrwd_sweep_schema" VALUES(2);
INSERT INTO "lrwd_sweep_schema" VALUES(3);
INSERT INTO "lrwd_sweep_schema" VALUES(4);
CREATE TABLE studies (
            id INTEGER NOT NULL PRIMARY KEY,
            name VARCHAR NOT NULL UNIQUE,
            spec JSON NOT NULL,
            created VARCHAR NOT NULL
        , version VARCHAR NOT NULL DEFAULT '', lanes INTEGER NOT NULL DEFAULT 0, lanes_checksum BIGINT NOT NULL DEFAULT 0, checksum BIGINT NOT NULL DEFAULT 0, seconds DOUBLE NOT NULL DEFAULT 0);
INSERT INTO "studies" VALUES(1,'digits-adamw','{"kind": "grid", "optimizer": {"family": "adam", "rule": "independent", "label": ""}, "lr": [0.01, 0.1], "weight_decay": [0.0, 0.001], "seeds": [0, 1], "metric": "val_loss", "training": {"net": "mlp-norm", "data": "digits", "epochs": 60, "batch_size": 64, "schedule": "cosine", "momentum": 0.9, "beta1": 0.9, "beta2": 0.999, "eps": 1e-08}}','2026-11-20T10:10:21+00:00','',3,-5175309332535551422,-7137705503134376532,0.0);
INSERT INTO "studies" VALUES(2,'digits-adam','{"kind": "grid", "optimizer": {"family": "adam", "rule": "coupled", "label": ""}, "lr": [0.01, 0.1], "weight_decay": [0.0, 0.001], "seeds": [0, 1], "metric": "val_loss", "training": {"net": "mlp-norm", "data": "digits", "epochs": 60, "batch_size": 64, "schedule": "cosine", "momentum": 0.9, "beta1": 0.9, "beta2": 0.999, "eps": 1e-08}}','2026-11-20T10:10:21+00:00','',0,0,-1451352319987469109,0.0);
CREATE TABLE trials (
            id INTEGER NOT NULL PRIMARY KEY,
            study_id INTEGER NOT NULL,
            lr DOUBLE NOT NULL,
            weight_decay DOUBLE NOT NULL,
            seed INTEGER NOT NULL,
            status VARCHAR NOT NULL,
            metrics JSON NOT NULL,
            detail VARCHAR NOT NULL, snapshots JSON NOT NULL DEFAULT '{}', curves_checksum BIGINT NOT NULL DEFAULT 0, checksum BIGINT NOT NULL DEFAULT 0,
            FOREIGN KEY (study_id) REFERENCES studies (id) ON DELETE CASCADE,
            CONSTRAINT one_trial_per_lane UNIQUE (study_id, lr, weight_decay, seed),
            CONSTRAINT positive_lr CHECK (lr > 0),
            CONSTRAINT no_negative_weight_decay CHECK (weight_decay >= 0),
            CONSTRAINT known_status CHECK (status IN ('complete', 'diverged', 'failed'))
        );
INSERT INTO "trials" VALUES(1,1,0.1,0.001,0,'complete','{"val_loss": 0.1, "val_error": 0.014285714285714287}','','{}',303368020372753688,-1252692339699612771);
INSERT INTO "trials" VALUES(2,1,0.1,0.001,1,'diverged','{}','epoch 2','{}',-8317952943636345897,6797722464347187375);
INSERT INTO "trials" VALUES(3,1,0.01,0.0,0,'failed','{}','no memory','{}',-5426141060434712860,7726404616526425590);
COMMIT;
