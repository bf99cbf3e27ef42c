-- SPDX-License-Identifier: Apache-2.0
-- Tenant networks. A network's revision rises with every change of anything below it, so that a
-- host asks one question only: which of my networks changed since?

CREATE TABLE networks (
	id TEXT PRIMARY KEY,
	tenant_id TEXT NOT NULL REFERENCES tenants (id),
	name TEXT NOT NULL,
	cidr TEXT NOT NULL,
	gateway TEXT NOT NULL,
	vni BIGINT NOT NULL UNIQUE CHECK (vni >= 1 AND vni <= 16777215),
	overlay_key TEXT NOT NULL,
	created BIGINT NOT NULL,
	revision BIGINT NOT NULL,
	UNIQUE (tenant_id, name),
	UNIQUE (tenant_id, id)
);
CREATE INDEX networks_by_revision ON networks (revision);

CREATE TABLE security_groups (
	id TEXT PRIMARY KEY,
	tenant_id TEXT NOT NULL REFERENCES tenants (id),
	name TEXT NOT NULL,
	created BIGINT NOT NULL,
	revision BIGINT NOT NULL,
	UNIQUE (tenant_id, name),
	UNIQUE (tenant_id, id)
);

CREATE TABLE security_rules (
	id TEXT PRIMARY KEY,
	tenant_id TEXT NOT NULL REFERENCES tenants (id),
	security_group_id TEXT NOT NULL,
	direction TEXT NOT NULL CHECK (direction IN ('in', 'out')),
	protocol TEXT NOT NULL CHECK (protocol IN ('any', 'tcp', 'udp', 'icmp')),
	first_port BIGINT NOT NULL CHECK (first_port >= 0 AND first_port <= last_port),
	last_port BIGINT NOT NULL CHECK (last_port <= 65535),
	remote TEXT NOT NULL,
	created BIGINT NOT NULL,
	revision BIGINT NOT NULL,
	FOREIGN KEY (tenant_id, security_group_id) REFERENCES security_groups (tenant_id, id)
);
CREATE INDEX security_rules_by_tenant ON security_rules (tenant_id, id);
CREATE INDEX security_rules_by_group ON security_rules (security_group_id, id);

CREATE TABLE ports (
	id TEXT PRIMARY KEY,
	tenant_id TEXT NOT NULL REFERENCES tenants (id),
	network_id TEXT NOT NULL,
	instance_id TEXT,
	security_group_id TEXT,
	mac TEXT NOT NULL,
	ip TEXT NOT NULL,
	created BIGINT NOT NULL,
	revision BIGINT NOT NULL,
	UNIQUE (network_id, ip),
	UNIQUE (network_id, mac),
	UNIQUE (tenant_id, id),
	FOREIGN KEY (tenant_id, network_id) REFERENCES networks (tenant_id, id),
	FOREIGN KEY (tenant_id, instance_id) REFERENCES instances (tenant_id, id),
	FOREIGN KEY (tenant_id, security_group_id) REFERENCES security_groups (tenant_id, id)
);
CREATE INDEX ports_by_instance ON ports (instance_id);
CREATE INDEX ports_by_security_group ON ports (security_group_id);

CREATE TABLE published_ports (
	id TEXT PRIMARY KEY,
	tenant_id TEXT NOT NULL REFERENCES tenants (id),
	port_id TEXT NOT NULL,
	host_id TEXT NOT NULL REFERENCES hosts (id),
	protocol TEXT NOT NULL CHECK (protocol IN ('tcp', 'udp')),
	host_port BIGINT NOT NULL CHECK (host_port >= 1 AND host_port <= 65535),
	guest_port BIGINT NOT NULL CHECK (guest_port >= 1 AND guest_port <= 65535),
	created BIGINT NOT NULL,
	revision BIGINT NOT NULL,
	UNIQUE (host_id, protocol, host_port),
	FOREIGN KEY (tenant_id, port_id) REFERENCES ports (tenant_id, id)
);
CREATE INDEX published_ports_by_tenant ON published_ports (tenant_id, id);
CREATE INDEX published_ports_by_port ON published_ports (port_id);
