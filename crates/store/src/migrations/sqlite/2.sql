-- Where a job runs, and when its process was last heard of (seconds since 1970, by the database's clock).
ALTER TABLE jobs ADD COLUMN host TEXT;
ALTER TABLE jobs ADD COLUMN seen INTEGER;
PRAGMA user_version = 2;
