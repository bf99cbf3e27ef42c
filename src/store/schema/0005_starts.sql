-- SPDX-License-Identifier: Apache-2.0
-- How often a start was asked for: one that failed is tried again when the host sees it rise.

ALTER TABLE instances ADD COLUMN desired_starts BIGINT NOT NULL DEFAULT 0;
