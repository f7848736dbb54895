-- Runs by the names that they were given.
CREATE INDEX flow_run_by_name ON flow_run (given_name) WHERE given_name IS NOT NULL;
CREATE INDEX task_run_by_name ON task_run (given_name) WHERE given_name IS NOT NULL;
CREATE INDEX amendment_by_name ON amendment (name) WHERE name IS NOT NULL;
