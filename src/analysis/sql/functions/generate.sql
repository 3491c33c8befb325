-- Prints builtin.txt: every function name of pg_catalog with what it can do, one line each:
-- `name class arity`, where class is p (computes from its arguments), c (reads definitions) or d
-- (anything else), and arity is 1 when some overload can be called with exactly one argument, else `-`.
-- A name gets the worst class of its overloads. Run on a fresh cluster of the newest supported
-- major version and review the difference line by line before committing it:
--   psql -X -At -f generate.sql > builtin.txt
-- Volatile functions are dangerous unless reviewed below; stable and immutable ones are harmless
-- unless they run statements from text, show rows, statistics, activity, locks, files or sizes.
WITH reviewed(name, class) AS (VALUES
  ('random', 'p'), ('gen_random_uuid', 'p'), ('clock_timestamp', 'p'), ('timeofday', 'p'),
  ('current_query', 'c'), ('pg_is_in_recovery', 'c'), ('pg_partition_tree', 'c'),
  ('pg_partition_ancestors', 'c'), ('pg_collation_actual_version', 'c'),
  ('pg_database_collation_actual_version', 'c'), ('pg_jit_available', 'c')
),
denied(pattern) AS (VALUES
  ('^(query|table|schema|database|cursor)_to_xml'), ('^ts_(stat|rewrite)$'), ('^dblink'),
  ('^pg_read'), ('^pg_ls_'), ('^pg_stat_'), ('^lo_'), ('^lo(read|write)$'), ('^pg_show_'),
  ('^pg_prepared_'), ('^pg_cursor$'), ('^pg_lock'), ('^pg_sleep'), ('^pg_(try_)?advisory'),
  ('^pg_logical'), ('^pg_(get_)?replication'), ('^pg_mcv_list_items$'), ('^pg_get_publication'),
  ('^pg_config$'), ('^binary_upgrade'), ('^pg_event_trigger'), ('^fmgr_'), ('^pg_hba'),
  ('^pg_(indexes|table|relation|total_relation|database|tablespace)_size$'),
  ('^(nextval|currval|lastval|setval|set_config|setseed)$'), ('^pg_tablespace_')
),
functions AS (
  SELECT p.proname AS name, p.provolatile AS volatility,
         1 BETWEEN p.pronargs - p.pronargdefaults AND p.pronargs
           OR (p.provariadic <> 0 AND p.pronargs <= 2) AS unary
  FROM pg_catalog.pg_proc p
  WHERE p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace
    AND p.prorettype::pg_catalog.regtype::text NOT IN ('internal', 'trigger', 'event_trigger',
        'language_handler', 'fdw_handler', 'index_am_handler', 'table_am_handler', 'tsm_handler')
    AND NOT 'internal'::pg_catalog.regtype = ANY (p.proargtypes)
),
classed AS (
  SELECT f.name, f.unary,
         CASE WHEN EXISTS (SELECT FROM denied d WHERE f.name ~ d.pattern) THEN 'd'
              WHEN r.class IS NOT NULL THEN r.class
              WHEN f.volatility = 'v' THEN 'd'
              WHEN f.name ~ '^(pg_|has_|to_reg|current_|inet_(client|server)_|row_security|txid_)'
                OR f.name ~ '(_description|^format_type|^session_user|^getpgusername|^version)$'
                OR f.volatility = 's' AND f.name ~ '^reg' THEN 'c'
              ELSE 'p' END AS class
  FROM functions f LEFT JOIN reviewed r ON r.name = f.name
)
SELECT name || ' ' || CASE WHEN bool_or(class = 'd') THEN 'd' WHEN bool_or(class = 'c') THEN 'c'
                           ELSE 'p' END
            || ' ' || CASE WHEN bool_or(unary) THEN '1' ELSE '-' END
FROM classed GROUP BY name ORDER BY name COLLATE "C";
