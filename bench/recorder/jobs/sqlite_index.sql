-- The job of trace sqlite-index: fill a table of 200,000 rows, index it, query it, delete.
.output /dev/null
CREATE TABLE event(id INTEGER PRIMARY KEY, name TEXT, kind INTEGER, payload TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000)
INSERT INTO event SELECT i, 'name-' || ((i * 7919) % 200003), i % 17, substr('payload of some length that varies', 1, i % 33) FROM n;
CREATE INDEX event_name ON event(name);
CREATE INDEX event_kind ON event(kind, payload);
SELECT kind, count(*), group_concat(name) FROM event WHERE id % 50 = 0 GROUP BY kind ORDER BY 2;
SELECT a.name, b.name FROM event a JOIN event b ON b.name = 'name-' || a.kind WHERE a.id < 2000;
SELECT upper(replace(name, '-', '_')) || json_object('k', kind, 'p', payload) FROM event WHERE id < 20000;
DELETE FROM event WHERE kind = 3;
