-- SPDX-License-Identifier: Apache-2.0
-- Images, groups, instances, members and volumes.
--
-- A reference to a thing of a tenant is a key of two columns, so that it cannot lead to another
-- tenant's. Images are the exception: public ones are everybody's.

CREATE TABLE images (
	id TEXT PRIMARY KEY,
	tenant_id TEXT NOT NULL REFERENCES tenants (id),
	name TEXT NOT NULL,
	version TEXT NOT NULL,
	format TEXT NOT NULL CHECK (format IN ('raw', 'qcow2')),
	size BIGINT NOT NULL CHECK (size >= 0),
	sha256 TEXT NOT NULL,
	path TEXT NOT NULL,
	metadata TEXT NOT NULL,
	public BIGINT NOT NULL CHECK (public IN (0, 1)),
	state TEXT NOT NULL CHECK (state IN ('importing', 'ready', 'failed')),
	created BIGINT NOT NULL,
	revision BIGINT NOT NULL,
	UNIQUE (tenant_id, name, version)
);
CREATE INDEX images_by_tenant ON images (tenant_id, id);
CREATE INDEX images_by_name ON images (name);

-- primary_member_id refers to members, which refer to groups; a key both ways is not portable.
CREATE TABLE groups (
	id TEXT PRIMARY KEY,
	tenant_id TEXT NOT NULL REFERENCES tenants (id),
	name TEXT NOT NULL,
	size BIGINT NOT NULL CHECK (size >= 1),
	min_copies BIGINT NOT NULL CHECK (min_copies >= 1),
	placement TEXT NOT NULL CHECK (placement IN ('hosts', 'zones', 'same-host')),
	commit_mode TEXT NOT NULL CHECK (commit_mode IN ('async', 'sync', 'output')),
	divergence TEXT NOT NULL CHECK (divergence IN ('alarm', 'evict', 'realign')),
	epoch BIGINT NOT NULL CHECK (epoch >= 0),
	source_host_id TEXT REFERENCES hosts (id),
	primary_member_id TEXT,
	created BIGINT NOT NULL,
	revision BIGINT NOT NULL,
	UNIQUE (tenant_id, name),
	UNIQUE (tenant_id, id)
);
CREATE INDEX groups_by_source_host ON groups (source_host_id);

-- desired = 'terminated' is the request to go away; the row goes when the host has said it is done.
-- A reboot is asked for by raising desired_boot and done when observed_boot has followed.
CREATE TABLE instances (
	id TEXT PRIMARY KEY,
	tenant_id TEXT NOT NULL REFERENCES tenants (id),
	name TEXT NOT NULL,
	image_id TEXT NOT NULL REFERENCES images (id),
	group_id TEXT,
	host_id TEXT REFERENCES hosts (id),
	cores BIGINT NOT NULL CHECK (cores >= 1),
	memory BIGINT NOT NULL CHECK (memory >= 1),
	disk BIGINT NOT NULL CHECK (disk >= 0),
	desired TEXT NOT NULL CHECK (desired IN ('running', 'paused', 'stopped', 'terminated')),
	desired_boot BIGINT NOT NULL,
	desired_revision BIGINT NOT NULL,
	observed TEXT NOT NULL CHECK (observed IN
		('pending', 'creating', 'running', 'paused', 'stopping', 'stopped', 'failed',
		'absent')),
	observed_boot BIGINT NOT NULL,
	observed_revision BIGINT NOT NULL,
	observed_at BIGINT NOT NULL,
	reason TEXT NOT NULL,
	created BIGINT NOT NULL,
	revision BIGINT NOT NULL,
	user_data BYTEA NOT NULL CHECK (length(user_data) <= 65536),
	UNIQUE (tenant_id, name),
	UNIQUE (tenant_id, id),
	FOREIGN KEY (tenant_id, group_id) REFERENCES groups (tenant_id, id)
);
CREATE INDEX instances_by_host ON instances (host_id, desired_revision);
CREATE INDEX instances_by_group ON instances (group_id);
CREATE INDEX instances_by_image ON instances (image_id);

CREATE TABLE members (
	id TEXT PRIMARY KEY,
	tenant_id TEXT NOT NULL REFERENCES tenants (id),
	group_id TEXT NOT NULL,
	name TEXT NOT NULL,
	instance_id TEXT,
	host_id TEXT REFERENCES hosts (id),
	state TEXT NOT NULL CHECK (state IN ('joining', 'active', 'diverged', 'evicted', 'dead')),
	reason TEXT NOT NULL,
	created BIGINT NOT NULL,
	revision BIGINT NOT NULL,
	UNIQUE (group_id, name),
	FOREIGN KEY (tenant_id, group_id) REFERENCES groups (tenant_id, id),
	FOREIGN KEY (tenant_id, instance_id) REFERENCES instances (tenant_id, id)
);
CREATE INDEX members_by_tenant ON members (tenant_id, id);
CREATE INDEX members_by_instance ON members (instance_id);
CREATE INDEX members_by_host ON members (host_id);

-- The epoch is the ownership grant: it rises whenever another host may open the volume.
CREATE TABLE volumes (
	id TEXT PRIMARY KEY,
	tenant_id TEXT NOT NULL REFERENCES tenants (id),
	name TEXT NOT NULL,
	kind TEXT NOT NULL CHECK (kind IN ('local', 'network')),
	format TEXT NOT NULL CHECK (format IN ('raw', 'qcow2')),
	size BIGINT NOT NULL CHECK (size >= 1),
	host_id TEXT REFERENCES hosts (id),
	instance_id TEXT,
	location TEXT NOT NULL,
	epoch BIGINT NOT NULL CHECK (epoch >= 0),
	state TEXT NOT NULL CHECK (state IN ('creating', 'available', 'attached', 'deleting', 'failed')),
	created BIGINT NOT NULL,
	revision BIGINT NOT NULL,
	UNIQUE (tenant_id, name),
	FOREIGN KEY (tenant_id, instance_id) REFERENCES instances (tenant_id, id)
);
CREATE INDEX volumes_by_tenant ON volumes (tenant_id, id);
CREATE INDEX volumes_by_host ON volumes (host_id);
CREATE INDEX volumes_by_instance ON volumes (instance_id);
