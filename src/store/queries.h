/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every statement of the store, in the dialect that SQLite and PostgreSQL share.
 *
 * $1, $2 … are the parameters. "tenant_id BETWEEN $2 AND $3" is the scope of the caller: who asks
 * for one tenant's things gives it as both bounds. Lists go on behind a row by comparing
 * (tenant_id, id) with the last one seen. A statement that begins with SELECT only reads.
 */
#ifndef SOSIE_STORE_QUERIES_H
#define SOSIE_STORE_QUERIES_H

/* clang-format off */
#define TENANT_COLUMNS \
	"id, name, created, revision"
#define TOKEN_COLUMNS \
	"id, tenant_id, host_id, role, hash, comment, expires, last_used, created, " \
	"revision"
#define HOST_COLUMNS \
	"id, name, zone, cores, memory, disk, cores_free, memory_free, disk_free, " \
	"cpu_model, accel, agent_version, endpoint, state, last_seen, join_token_hash, " \
	"desired_revision, event_sequence, created, revision"
#define IMAGE_COLUMNS \
	"id, tenant_id, name, version, format, size, sha256, path, metadata, public, " \
	"state, created, revision"
#define GROUP_COLUMNS \
	"id, tenant_id, name, size, min_copies, placement, commit_mode, divergence, " \
	"epoch, source_host_id, primary_member_id, created, revision"
#define MEMBER_COLUMNS \
	"id, tenant_id, group_id, name, instance_id, host_id, state, reason, created, " \
	"revision"
#define INSTANCE_COLUMNS \
	"id, tenant_id, name, image_id, group_id, host_id, cores, memory, disk, desired, " \
	"desired_boot, desired_starts, desired_revision, observed, observed_boot, " \
	"observed_revision, observed_at, reason, created, revision"
#define VOLUME_COLUMNS \
	"id, tenant_id, name, kind, format, size, host_id, instance_id, location, epoch, " \
	"state, created, revision"
#define NETWORK_COLUMNS \
	"id, tenant_id, name, cidr, gateway, vni, overlay_key, created, revision"
#define PORT_COLUMNS \
	"id, tenant_id, network_id, instance_id, security_group_id, mac, ip, created, " \
	"revision"
#define SECURITY_GROUP_COLUMNS \
	"id, tenant_id, name, created, revision"
#define SECURITY_RULE_COLUMNS \
	"id, tenant_id, security_group_id, direction, protocol, first_port, last_port, " \
	"remote, created, revision"
#define PUBLISHED_PORT_COLUMNS \
	"id, tenant_id, port_id, host_id, protocol, host_port, guest_port, created, " \
	"revision"
#define EVENT_COLUMNS \
	"revision, at, tenant_id, kind, subject, data"
#define AUDIT_COLUMNS \
	"revision, at, tenant_id, token_id, role, method, path, status, remote"

#define VALUES_4 "$1, $2, $3, $4"
#define VALUES_5 VALUES_4 ", $5"
#define VALUES_6 VALUES_5 ", $6"
#define VALUES_8 VALUES_6 ", $7, $8"
#define VALUES_9 VALUES_8 ", $9"
#define VALUES_10 VALUES_9 ", $10"
#define VALUES_13 VALUES_10 ", $11, $12, $13"
#define VALUES_18 VALUES_13 ", $14, $15, $16, $17, $18"
#define VALUES_19 VALUES_18 ", $19"
#define VALUES_20 VALUES_19 ", $20"
#define VALUES_21 VALUES_20 ", $21"

#define STORE_QUERY_TABLE(X) \
	/* the schema and the counter */ \
	X(MIGRATION_LIST, "SELECT number, checksum FROM migrations ORDER BY number") \
	X(MIGRATION_INSERT, \
		"INSERT INTO migrations (number, name, checksum, applied) VALUES (" VALUES_4 ")") \
	X(REVISION_NEXT, "UPDATE revisions SET last = last + 1 WHERE only_row = 1 RETURNING last") \
	X(REVISION_LAST, "SELECT last FROM revisions WHERE only_row = 1") \
	/* tenants and tokens */ \
	X(TENANT_INSERT, "INSERT INTO tenants (" TENANT_COLUMNS ") VALUES (" VALUES_4 ")") \
	X(TENANT_GET, "SELECT " TENANT_COLUMNS " FROM tenants WHERE id = $1") \
	X(TENANT_BY_NAME, "SELECT " TENANT_COLUMNS " FROM tenants WHERE name = $1") \
	X(TENANT_LIST, \
		"SELECT " TENANT_COLUMNS " FROM tenants WHERE id > $1 ORDER BY id LIMIT $2") \
	X(TENANT_DELETE, "DELETE FROM tenants WHERE id = $1") \
	X(TOKEN_INSERT, "INSERT INTO tokens (" TOKEN_COLUMNS ") VALUES (" VALUES_10 ")") \
	X(TOKEN_BY_HASH, "SELECT " TOKEN_COLUMNS " FROM tokens WHERE hash = $1") \
	X(TOKEN_LIST, \
		"SELECT " TOKEN_COLUMNS " FROM tokens " \
		"WHERE id > $1 AND COALESCE(tenant_id, '') BETWEEN $2 AND $3 ORDER BY id LIMIT " \
		"$4") \
	X(TOKEN_USED, "UPDATE tokens SET last_used = $2 WHERE id = $1") \
	X(TOKEN_DELETE, \
		"DELETE FROM tokens " \
		"WHERE id = $1 AND COALESCE(tenant_id, '') BETWEEN $2 AND $3") \
	/* hosts and reservations */ \
	X(HOST_INSERT, "INSERT INTO hosts (" HOST_COLUMNS ") VALUES (" VALUES_20 ")") \
	X(HOST_GET, "SELECT " HOST_COLUMNS " FROM hosts WHERE id = $1") \
	X(HOST_BY_NAME, "SELECT " HOST_COLUMNS " FROM hosts WHERE name = $1") \
	X(HOST_LIST, "SELECT " HOST_COLUMNS " FROM hosts WHERE id > $1 ORDER BY id LIMIT $2") \
	X(HOST_UPDATE, \
		"UPDATE hosts SET zone = $3, cpu_model = $4, accel = $5, agent_version = $6, " \
		"endpoint = $7, state = $8, join_token_hash = $9, " \
		"cores_free = cores_free + ($10 - cores), cores = $10, " \
		"memory_free = memory_free + ($11 - memory), memory = $11, " \
		"disk_free = disk_free + ($12 - disk), disk = $12, revision = $13 " \
		"WHERE id = $1 AND revision = $2") \
	X(HOST_SEEN, "UPDATE hosts SET last_seen = $2 WHERE id = $1") \
	X(HOST_TAKE_EVENTS, \
		"UPDATE hosts SET event_sequence = $2 WHERE id = $1 AND event_sequence < $2") \
	X(HOST_WAKE, "UPDATE hosts SET desired_revision = $2 WHERE id = $1") \
	X(HOST_TOUCH_OF_INSTANCE, \
		"UPDATE hosts SET desired_revision = $2 " \
		"WHERE id = (SELECT host_id FROM instances WHERE id = $1)") \
	X(HOST_TOUCH_OF_NETWORK, \
		"UPDATE hosts SET desired_revision = $2 WHERE id IN " \
		"(SELECT i.host_id FROM ports p JOIN instances i ON i.id = p.instance_id " \
		"WHERE p.network_id = $1 " \
		"UNION SELECT u.host_id FROM ports p JOIN published_ports u ON u.port_id = p.id " \
		"WHERE p.network_id = $1)") \
	X(HOST_TOUCH_OF_GROUP, \
		"UPDATE hosts SET desired_revision = $2 WHERE id IN " \
		"(SELECT host_id FROM instances WHERE group_id = $1 " \
		"UNION SELECT host_id FROM members WHERE group_id = $1 " \
		"UNION SELECT source_host_id FROM groups WHERE id = $1)") \
	X(HOST_DELETE, "DELETE FROM hosts WHERE id = $1") \
	X(HOST_TAKE, \
		"UPDATE hosts SET cores_free = cores_free - $2, memory_free = memory_free - $3, " \
		"disk_free = disk_free - $4 " \
		"WHERE id = $1 AND state = 'online' " \
		"AND cores_free >= $2 AND memory_free >= $3 AND disk_free >= $4") \
	X(HOST_GIVE_BACK, \
		"UPDATE hosts SET cores_free = cores_free + $2, memory_free = memory_free + $3, " \
		"disk_free = disk_free + $4 WHERE id = $1") \
	X(HOST_UNBALANCED, \
		"SELECT h.name FROM hosts h LEFT JOIN reservations r ON r.host_id = h.id " \
		"GROUP BY h.id, h.name, h.cores, h.memory, h.disk, h.cores_free, h.memory_free, " \
		"h.disk_free " \
		"HAVING h.cores <> h.cores_free + COALESCE(SUM(r.cores), 0) " \
		"OR h.memory <> h.memory_free + COALESCE(SUM(r.memory), 0) " \
		"OR h.disk <> h.disk_free + COALESCE(SUM(r.disk), 0) LIMIT 1") \
	X(RESERVATION_INSERT, \
		"INSERT INTO reservations (holder_id, host_id, cores, memory, disk, created) " \
		"VALUES (" VALUES_6 ")") \
	X(RESERVATION_DELETE, \
		"DELETE FROM reservations WHERE holder_id = $1 AND host_id = $2 " \
		"RETURNING cores, memory, disk") \
	X(RESERVATION_HOSTS, \
		"SELECT host_id FROM reservations WHERE holder_id = $1 AND host_id > $2 " \
		"ORDER BY host_id LIMIT 1") \
	/* images */ \
	X(IMAGE_INSERT, "INSERT INTO images (" IMAGE_COLUMNS ") VALUES (" VALUES_13 ")") \
	X(IMAGE_GET, \
		"SELECT " IMAGE_COLUMNS " FROM images " \
		"WHERE id = $1 AND (public = 1 OR tenant_id BETWEEN $2 AND $3)") \
	X(IMAGE_BY_NAME, \
		"SELECT " IMAGE_COLUMNS " FROM images WHERE name = $2 AND (version = $3 OR $3 = " \
		"'') " \
		"AND (tenant_id = $1 OR public = 1) " \
		"ORDER BY CASE WHEN tenant_id = $1 THEN 0 ELSE 1 END, id DESC LIMIT 1") \
	X(IMAGE_LIST, \
		"SELECT " IMAGE_COLUMNS " FROM images WHERE (tenant_id, id) > ($1, $2) " \
		"AND (public = 1 OR tenant_id BETWEEN $3 AND $4) ORDER BY tenant_id, id LIMIT $5") \
	X(IMAGE_UPDATE, \
		"UPDATE images SET size = $3, sha256 = $4, path = $5, metadata = $6, public = " \
		"$7, " \
		"state = $8, revision = $9 " \
		"WHERE id = $1 AND revision = $2 AND tenant_id BETWEEN $10 AND $11") \
	X(IMAGE_DELETE, "DELETE FROM images WHERE id = $1 AND tenant_id BETWEEN $2 AND $3") \
	/* groups and members */ \
	X(GROUP_INSERT, "INSERT INTO groups (" GROUP_COLUMNS ") VALUES (" VALUES_13 ")") \
	X(GROUP_GET, \
		"SELECT " GROUP_COLUMNS " FROM groups " \
		"WHERE id = $1 AND tenant_id BETWEEN $2 AND $3") \
	X(GROUP_BY_NAME, \
		"SELECT " GROUP_COLUMNS " FROM groups " \
		"WHERE tenant_id = $1 AND name = $2") \
	X(GROUP_LIST, \
		"SELECT " GROUP_COLUMNS " FROM groups " \
		"WHERE (tenant_id, id) > ($1, $2) AND tenant_id <= $3 " \
		"ORDER BY tenant_id, id LIMIT $4") \
	X(GROUP_UPDATE, \
		"UPDATE groups SET size = $3, min_copies = $4, placement = $5, commit_mode = $6, " \
		"divergence = $7, revision = $8 " \
		"WHERE id = $1 AND revision = $2 AND tenant_id BETWEEN $9 AND $10") \
	X(GROUP_RECONFIGURE, \
		"UPDATE groups SET epoch = epoch + 1, source_host_id = $3, primary_member_id = " \
		"$4, " \
		"revision = $5 WHERE id = $1 AND epoch = $2") \
	X(GROUP_DELETE, "DELETE FROM groups WHERE id = $1 AND tenant_id BETWEEN $2 AND $3") \
	X(MEMBER_INSERT, "INSERT INTO members (" MEMBER_COLUMNS ") VALUES (" VALUES_10 ")") \
	X(MEMBER_GET, \
		"SELECT " MEMBER_COLUMNS " FROM members " \
		"WHERE id = $1 AND tenant_id BETWEEN $2 AND $3") \
	X(MEMBER_LIST, \
		"SELECT " MEMBER_COLUMNS " FROM members " \
		"WHERE (tenant_id, id) > ($1, $2) AND tenant_id <= $3 " \
		"AND ($5 = '' OR group_id = $5) " \
		"ORDER BY tenant_id, id LIMIT $4") \
	X(MEMBER_UPDATE, \
		"UPDATE members SET host_id = $3, state = $4, reason = $5, revision = $6 " \
		"WHERE id = $1 AND revision = $2") \
	X(MEMBER_DELETE, "DELETE FROM members WHERE id = $1 AND tenant_id BETWEEN $2 AND $3") \
	X(MEMBER_DELETE_OF_INSTANCE, "DELETE FROM members WHERE instance_id = $1") \
	/* instances */ \
	X(INSTANCE_INSERT, \
		"INSERT INTO instances (" INSTANCE_COLUMNS ", user_data) VALUES (" VALUES_21 ")") \
	X(INSTANCE_GET, \
		"SELECT " INSTANCE_COLUMNS " FROM instances " \
		"WHERE id = $1 AND tenant_id BETWEEN $2 AND $3") \
	X(INSTANCE_BY_NAME, \
		"SELECT " INSTANCE_COLUMNS " FROM instances " \
		"WHERE tenant_id = $1 AND name = $2") \
	X(INSTANCE_LIST, \
		"SELECT " INSTANCE_COLUMNS " FROM instances " \
		"WHERE (tenant_id, id) > ($1, $2) AND tenant_id <= $3 " \
		"AND ($5 = '' OR group_id = $5) AND ($6 = '' OR host_id = $6) " \
		"ORDER BY tenant_id, id LIMIT $4") \
	X(INSTANCE_USER_DATA, \
		"SELECT user_data FROM instances WHERE id = $1 AND tenant_id BETWEEN $2 AND $3") \
	X(INSTANCE_OF_HOST_SINCE, \
		"SELECT " INSTANCE_COLUMNS " FROM instances " \
		"WHERE host_id = $1 AND desired_revision > $2 ORDER BY desired_revision LIMIT $3") \
	X(INSTANCE_DESIRE, \
		"UPDATE instances SET desired = $3, desired_boot = $4, cores = $5, memory = $6, " \
		"disk = $7, desired_starts = $8, " \
		"desired_revision = $9, revision = $9 " \
		"WHERE id = $1 AND revision = $2 AND tenant_id BETWEEN $10 AND $11") \
	X(INSTANCE_PLACE, \
		"UPDATE instances SET host_id = $3, desired_revision = $4, revision = $4 " \
		"WHERE id = $1 AND revision = $2") \
	X(INSTANCE_OBSERVE, \
		"UPDATE instances SET observed = $3, observed_boot = $4, observed_revision = $5, " \
		"observed_at = $6, reason = $7, revision = $8 WHERE id = $1 AND host_id = $2") \
	X(INSTANCE_DELETE, \
		"DELETE FROM instances " \
		"WHERE id = $1 AND desired = 'terminated' AND tenant_id BETWEEN $2 AND $3") \
	/* volumes */ \
	X(VOLUME_INSERT, "INSERT INTO volumes (" VOLUME_COLUMNS ") VALUES (" VALUES_13 ")") \
	X(VOLUME_GET, \
		"SELECT " VOLUME_COLUMNS " FROM volumes " \
		"WHERE id = $1 AND tenant_id BETWEEN $2 AND $3") \
	X(VOLUME_BY_NAME, \
		"SELECT " VOLUME_COLUMNS " FROM volumes " \
		"WHERE tenant_id = $1 AND name = $2") \
	X(VOLUME_LIST, \
		"SELECT " VOLUME_COLUMNS " FROM volumes " \
		"WHERE (tenant_id, id) > ($1, $2) AND tenant_id <= $3 " \
		"AND ($5 = '' OR instance_id = $5) " \
		"ORDER BY tenant_id, id LIMIT $4") \
	X(VOLUME_UPDATE, \
		"UPDATE volumes SET size = $3, host_id = $4, instance_id = $5, location = $6, " \
		"epoch = $7, " \
		"state = $8, revision = $9 " \
		"WHERE id = $1 AND revision = $2 AND epoch <= $7 AND tenant_id BETWEEN $10 AND " \
		"$11") \
	X(VOLUME_DETACH_INSTANCE, \
		"UPDATE volumes SET instance_id = NULL, state = 'available', revision = $2 " \
		"WHERE instance_id = $1") \
	X(VOLUME_DELETE, "DELETE FROM volumes WHERE id = $1 AND tenant_id BETWEEN $2 AND $3") \
	/* networks */ \
	X(NETWORK_INSERT, "INSERT INTO networks (" NETWORK_COLUMNS ") VALUES (" VALUES_9 ")") \
	X(NETWORK_GET, \
		"SELECT " NETWORK_COLUMNS " FROM networks " \
		"WHERE id = $1 AND tenant_id BETWEEN $2 AND $3") \
	X(NETWORK_BY_NAME, \
		"SELECT " NETWORK_COLUMNS " FROM networks " \
		"WHERE tenant_id = $1 AND name = $2") \
	X(NETWORK_LIST, \
		"SELECT " NETWORK_COLUMNS " FROM networks " \
		"WHERE (tenant_id, id) > ($1, $2) AND tenant_id <= $3 " \
		"ORDER BY tenant_id, id LIMIT $4") \
	X(NETWORK_NEXT_VNI, "SELECT COALESCE(MAX(vni), 0) + 1 FROM networks") \
	X(NETWORK_TOUCH, "UPDATE networks SET revision = $2 WHERE id = $1") \
	X(NETWORK_OF_HOST_SINCE, \
		"SELECT " NETWORK_COLUMNS " FROM networks WHERE revision > $2 AND id IN " \
		"(SELECT p.network_id FROM ports p JOIN instances i ON i.id = p.instance_id " \
		"WHERE i.host_id = $1) ORDER BY revision LIMIT $3") \
	X(NETWORK_OF_INSTANCE, \
		"SELECT DISTINCT network_id FROM ports WHERE instance_id = $1 AND network_id > " \
		"$2 " \
		"ORDER BY network_id LIMIT 1") \
	X(NETWORK_OF_SECURITY_GROUP, \
		"SELECT DISTINCT network_id FROM ports WHERE security_group_id = $1 AND " \
		"network_id > $2 " \
		"ORDER BY network_id LIMIT 1") \
	X(NETWORK_DELETE, "DELETE FROM networks WHERE id = $1 AND tenant_id BETWEEN $2 AND $3") \
	X(PORT_INSERT, "INSERT INTO ports (" PORT_COLUMNS ") VALUES (" VALUES_9 ")") \
	X(PORT_GET, \
		"SELECT " PORT_COLUMNS " FROM ports " \
		"WHERE id = $1 AND tenant_id BETWEEN $2 AND $3") \
	X(PORT_LIST, \
		"SELECT " PORT_COLUMNS " FROM ports " \
		"WHERE (tenant_id, id) > ($1, $2) AND tenant_id <= $3 " \
		"AND ($5 = '' OR network_id = $5) AND ($6 = '' OR instance_id = $6) " \
		"ORDER BY tenant_id, id LIMIT $4") \
	X(PORT_UPDATE, \
		"UPDATE ports SET instance_id = $3, security_group_id = $4, revision = $5 " \
		"WHERE id = $1 AND revision = $2 AND tenant_id BETWEEN $6 AND $7") \
	X(PORT_DELETE, "DELETE FROM ports WHERE id = $1 AND tenant_id BETWEEN $2 AND $3") \
	X(PORT_DELETE_OF_INSTANCE, "DELETE FROM ports WHERE instance_id = $1") \
	X(SECURITY_GROUP_INSERT, \
		"INSERT INTO security_groups (" SECURITY_GROUP_COLUMNS ") VALUES (" VALUES_5 ")") \
	X(SECURITY_GROUP_GET, \
		"SELECT " SECURITY_GROUP_COLUMNS " FROM security_groups " \
		"WHERE id = $1 AND tenant_id BETWEEN $2 AND $3") \
	X(SECURITY_GROUP_BY_NAME, \
		"SELECT " SECURITY_GROUP_COLUMNS " FROM security_groups " \
		"WHERE tenant_id = $1 AND name = $2") \
	X(SECURITY_GROUP_LIST, \
		"SELECT " SECURITY_GROUP_COLUMNS " FROM security_groups " \
		"WHERE (tenant_id, id) > ($1, $2) AND tenant_id <= $3 " \
		"ORDER BY tenant_id, id LIMIT $4") \
	X(SECURITY_GROUP_DELETE, \
		"DELETE FROM security_groups WHERE id = $1 AND tenant_id BETWEEN $2 AND $3") \
	X(SECURITY_RULE_INSERT, \
		"INSERT INTO security_rules (" SECURITY_RULE_COLUMNS ") VALUES (" VALUES_10 ")") \
	X(SECURITY_RULE_GET, \
		"SELECT " SECURITY_RULE_COLUMNS " FROM security_rules " \
		"WHERE id = $1 AND tenant_id BETWEEN $2 AND $3") \
	X(SECURITY_RULE_LIST, \
		"SELECT " SECURITY_RULE_COLUMNS " FROM security_rules " \
		"WHERE (tenant_id, id) > ($1, $2) AND tenant_id <= $3 " \
		"AND ($5 = '' OR security_group_id = $5) " \
		"ORDER BY tenant_id, id LIMIT $4") \
	X(SECURITY_RULE_DELETE, \
		"DELETE FROM security_rules WHERE id = $1 AND tenant_id BETWEEN $2 AND $3") \
	X(SECURITY_RULE_DELETE_OF_GROUP, \
		"DELETE FROM security_rules WHERE security_group_id = $1") \
	X(PUBLISHED_PORT_INSERT, \
		"INSERT INTO published_ports (" PUBLISHED_PORT_COLUMNS ") VALUES (" VALUES_9 ")") \
	X(PUBLISHED_PORT_GET, \
		"SELECT " PUBLISHED_PORT_COLUMNS " FROM published_ports " \
		"WHERE id = $1 AND tenant_id BETWEEN $2 AND $3") \
	X(PUBLISHED_PORT_LIST, \
		"SELECT " PUBLISHED_PORT_COLUMNS " FROM published_ports " \
		"WHERE (tenant_id, id) > ($1, $2) AND tenant_id <= $3 " \
		"AND ($5 = '' OR port_id = $5) AND ($6 = '' OR host_id = $6) " \
		"ORDER BY tenant_id, id LIMIT $4") \
	X(PUBLISHED_PORT_DELETE, \
		"DELETE FROM published_ports WHERE id = $1 AND tenant_id BETWEEN $2 AND $3") \
	X(PUBLISHED_PORT_DELETE_OF_INSTANCE, \
		"DELETE FROM published_ports WHERE port_id IN " \
		"(SELECT id FROM ports WHERE instance_id = $1)") \
	/* events and audit */ \
	X(EVENT_INSERT, "INSERT INTO events (" EVENT_COLUMNS ") VALUES (" VALUES_6 ")") \
	X(EVENT_SINCE, \
		"SELECT " EVENT_COLUMNS " FROM events " \
		"WHERE revision > $1 AND tenant_id BETWEEN $2 AND $3 ORDER BY revision LIMIT $4") \
	X(EVENT_TRIM, "DELETE FROM events WHERE at < $1") \
	X(AUDIT_INSERT, "INSERT INTO audit (" AUDIT_COLUMNS ") VALUES (" VALUES_9 ")") \
	X(AUDIT_SINCE, \
		"SELECT " AUDIT_COLUMNS " FROM audit " \
		"WHERE revision > $1 AND tenant_id BETWEEN $2 AND $3 ORDER BY revision LIMIT $4") \
	X(AUDIT_TRIM, "DELETE FROM audit WHERE at < $1")
/* clang-format on */

#endif
