-- SPDX-License-Identifier: Apache-2.0
-- Hosts, what is reserved on them, and the tokens of people and hosts.
--
-- Invariant: of each resource, free = total - sum of the host's reservations, and free >= 0. The
-- counter is what makes two simultaneous reservations meet: both must change the same row.

-- desired_revision rises with every change that the host's agent must see, in whatever table;
-- event_sequence is the last of the agent's own events that has been taken down.
CREATE TABLE hosts (
	id TEXT PRIMARY KEY,
	name TEXT NOT NULL UNIQUE,
	zone TEXT NOT NULL,
	cores BIGINT NOT NULL CHECK (cores >= 0),
	memory BIGINT NOT NULL CHECK (memory >= 0),
	disk BIGINT NOT NULL CHECK (disk >= 0),
	cores_free BIGINT NOT NULL CHECK (cores_free >= 0 AND cores_free <= cores),
	memory_free BIGINT NOT NULL CHECK (memory_free >= 0 AND memory_free <= memory),
	disk_free BIGINT NOT NULL CHECK (disk_free >= 0 AND disk_free <= disk),
	cpu_model TEXT NOT NULL,
	accel TEXT NOT NULL,
	agent_version TEXT NOT NULL,
	endpoint TEXT NOT NULL,
	state TEXT NOT NULL CHECK (state IN ('enrolled', 'online', 'offline', 'draining')),
	last_seen BIGINT NOT NULL,
	join_token_hash TEXT NOT NULL,
	desired_revision BIGINT NOT NULL,
	event_sequence BIGINT NOT NULL,
	created BIGINT NOT NULL,
	revision BIGINT NOT NULL
);

-- The holder is an instance or a volume. One that moves holds room on two hosts for a while.
CREATE TABLE reservations (
	holder_id TEXT NOT NULL,
	host_id TEXT NOT NULL REFERENCES hosts (id),
	cores BIGINT NOT NULL CHECK (cores >= 0),
	memory BIGINT NOT NULL CHECK (memory >= 0),
	disk BIGINT NOT NULL CHECK (disk >= 0),
	created BIGINT NOT NULL,
	PRIMARY KEY (holder_id, host_id)
);
CREATE INDEX reservations_by_host ON reservations (host_id);

-- A token without a tenant acts on all of them, one with a host acts as that host's agent.
CREATE TABLE tokens (
	id TEXT PRIMARY KEY,
	tenant_id TEXT REFERENCES tenants (id),
	host_id TEXT REFERENCES hosts (id),
	role TEXT NOT NULL CHECK (role IN ('admin', 'operator', 'member', 'viewer', 'agent', 'join')),
	hash TEXT NOT NULL UNIQUE,
	comment TEXT NOT NULL,
	expires BIGINT NOT NULL,
	last_used BIGINT NOT NULL,
	created BIGINT NOT NULL,
	revision BIGINT NOT NULL
);
CREATE INDEX tokens_by_tenant ON tokens (tenant_id, id);
CREATE INDEX tokens_by_host ON tokens (host_id);
