-- SPDX-License-Identifier: Apache-2.0
-- Who there is, what changed when, and who asked for it.
--
-- The dialect of every file in this folder is what SQLite and PostgreSQL share: TEXT, BIGINT and
-- BYTEA, no defaults that call functions, no forward references. Times are nanoseconds since
-- 1970, sizes bytes, flags 0 or 1, and an empty text stands for "none" except in a reference,
-- which is NULL then. Identifiers are ASCII below '~' and compare by byte (PostgreSQL: a database
-- with collation "C").

-- One row. Taking a number locks it until the transaction ends, so that numbers become visible
-- in their own order.
CREATE TABLE revisions (
	only_row BIGINT PRIMARY KEY CHECK (only_row = 1),
	last BIGINT NOT NULL
);
INSERT INTO revisions (only_row, last) VALUES (1, 0);

CREATE TABLE tenants (
	id TEXT PRIMARY KEY,
	name TEXT NOT NULL UNIQUE,
	created BIGINT NOT NULL,
	revision BIGINT NOT NULL
);

-- Appended, never changed. No foreign keys: history outlives what it tells of.
CREATE TABLE events (
	revision BIGINT PRIMARY KEY,
	at BIGINT NOT NULL,
	tenant_id TEXT NOT NULL,
	kind TEXT NOT NULL,
	subject TEXT NOT NULL,
	data TEXT NOT NULL
);
CREATE INDEX events_by_time ON events (at);

CREATE TABLE audit (
	revision BIGINT PRIMARY KEY,
	at BIGINT NOT NULL,
	tenant_id TEXT NOT NULL,
	token_id TEXT NOT NULL,
	role TEXT NOT NULL,
	method TEXT NOT NULL,
	path TEXT NOT NULL,
	status BIGINT NOT NULL,
	remote TEXT NOT NULL
);
CREATE INDEX audit_by_time ON audit (at);
