WITH RECURSIVE base(id, target, typmod) AS (
  SELECT t.oid, t.typbasetype, t.typtypmod FROM pg_catalog.pg_type t
  WHERE t.typtype OPERATOR(pg_catalog.=) 'd'::pg_catalog."char"
  UNION ALL
  SELECT b.id, t.typbasetype,
         CASE WHEN b.typmod OPERATOR(pg_catalog.=) (-1) THEN t.typtypmod ELSE b.typmod END
  FROM base b JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) b.target
  WHERE t.typtype OPERATOR(pg_catalog.=) 'd'::pg_catalog."char"
), relations AS (
  SELECT c.oid, n.nspname, c.relname, c.relkind,
         n.nspname OPERATOR(pg_catalog.=) ANY (ARRAY['pg_catalog', 'information_schema']::pg_catalog.name[]) AS system
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
  WHERE c.relkind OPERATOR(pg_catalog.=) ANY (ARRAY['r', 'p', 'v', 'm', 'f', 'S']::pg_catalog."char"[])
    AND n.nspname OPERATOR(pg_catalog.<>) 'pg_toast'::pg_catalog.name
), extension_owned AS (
  SELECT d.classid, d.objid FROM pg_catalog.pg_depend d
  WHERE d.deptype OPERATOR(pg_catalog.=) 'e'::pg_catalog."char"
), own_functions AS (
  SELECT p.oid, n.nspname, p.proname, p.pronargs, p.pronargdefaults, p.provariadic
  FROM pg_catalog.pg_proc p
  JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
  WHERE n.nspname OPERATOR(pg_catalog.<>) ALL (ARRAY['pg_catalog', 'information_schema']::pg_catalog.name[])
)
SELECT f.kind, f.a, f.b, f.c, f.d, f.e, f.f FROM (
  SELECT 'relation'::pg_catalog.text AS kind, r.oid::pg_catalog.text AS a, r.nspname::pg_catalog.text AS b,
         r.relname::pg_catalog.text AS c, r.relkind::pg_catalog.text AS d,
         CASE WHEN NOT r.system AND r.relkind OPERATOR(pg_catalog.=) ANY (ARRAY['v', 'm']::pg_catalog."char"[])
              THEN pg_catalog.pg_get_viewdef(r.oid) END AS e,
         CASE WHEN NOT r.system AND EXISTS (
                SELECT FROM pg_catalog.pg_rewrite w
                WHERE w.ev_class OPERATOR(pg_catalog.=) r.oid
                  AND w.ev_type OPERATOR(pg_catalog.<>) '1'::pg_catalog."char")
              THEN 'rules' END AS f
  FROM relations r
  UNION ALL
  SELECT 'column', r.oid::pg_catalog.text, pg_catalog.lpad(a.attnum::pg_catalog.text, 5, '0'),
         a.attname::pg_catalog.text, n.nspname::pg_catalog.text, t.typname::pg_catalog.text,
         pg_catalog.format_type(t.oid, CASE WHEN b.id IS NULL OR a.atttypmod OPERATOR(pg_catalog.<>) (-1)
                                            THEN a.atttypmod ELSE b.typmod END)
  FROM relations r
  JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) r.oid
  LEFT JOIN (base b JOIN pg_catalog.pg_type plain ON plain.oid OPERATOR(pg_catalog.=) b.target
             AND plain.typtype OPERATOR(pg_catalog.<>) 'd'::pg_catalog."char")
    ON b.id OPERATOR(pg_catalog.=) a.atttypid
  JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) COALESCE(b.target, a.atttypid)
  JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) t.typnamespace
  WHERE NOT r.system AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped
  UNION ALL
  -- Servers keep what a generated column reads with its expression, older ones with the column.
  SELECT 'generated', a.attrelid::pg_catalog.text, a.attname::pg_catalog.text,
         source.attname::pg_catalog.text, NULL, NULL, NULL
  FROM relations r
  JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) r.oid
  JOIN pg_catalog.pg_attribute source ON source.attrelid OPERATOR(pg_catalog.=) r.oid
  WHERE NOT r.system AND a.attgenerated OPERATOR(pg_catalog.<>) ''::pg_catalog."char"
    AND source.attnum OPERATOR(pg_catalog.>) 0 AND source.attnum OPERATOR(pg_catalog.<>) a.attnum
    AND EXISTS (
      SELECT FROM pg_catalog.pg_depend d
      LEFT JOIN pg_catalog.pg_attrdef expression
        ON d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_attrdef'::pg_catalog.regclass::pg_catalog.oid
        AND expression.oid OPERATOR(pg_catalog.=) d.objid
      WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid
        AND d.refobjid OPERATOR(pg_catalog.=) r.oid
        AND d.refobjsubid OPERATOR(pg_catalog.=) source.attnum
        AND (expression.adrelid OPERATOR(pg_catalog.=) r.oid
             AND expression.adnum OPERATOR(pg_catalog.=) a.attnum
             OR d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid
             AND d.objid OPERATOR(pg_catalog.=) r.oid
             AND d.objsubid OPERATOR(pg_catalog.=) a.attnum))
  UNION ALL
  SELECT 'parent', h.inhrelid::pg_catalog.text, h.inhparent::pg_catalog.text,
         pg_catalog.lpad(h.inhseqno::pg_catalog.text, 5, '0'), NULL, NULL, NULL
  FROM pg_catalog.pg_inherits h
  UNION ALL
  SELECT 'function', p.nspname::pg_catalog.text, p.proname::pg_catalog.text,
         (p.pronargs OPERATOR(pg_catalog.-) p.pronargdefaults)::pg_catalog.text,
         CASE WHEN p.provariadic OPERATOR(pg_catalog.<>) 0::pg_catalog.oid THEN '100'
              ELSE p.pronargs::pg_catalog.text END, p.oid::pg_catalog.text,
         CASE WHEN EXISTS (SELECT FROM extension_owned x
                           WHERE x.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass::pg_catalog.oid
                             AND x.objid OPERATOR(pg_catalog.=) p.oid) THEN 'extension' END
  FROM own_functions p
  UNION ALL
  SELECT 'operator', o.oprname::pg_catalog.text, o.oid::pg_catalog.text, NULL, NULL, NULL, NULL
  FROM pg_catalog.pg_operator o
  JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) o.oprnamespace
  WHERE n.nspname OPERATOR(pg_catalog.<>) 'pg_catalog'::pg_catalog.name
    AND NOT EXISTS (SELECT FROM extension_owned x
                    WHERE x.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_operator'::pg_catalog.regclass::pg_catalog.oid
                      AND x.objid OPERATOR(pg_catalog.=) o.oid)
  UNION ALL
  SELECT 'cast', n.nspname::pg_catalog.text, t.typname::pg_catalog.text, c.oid::pg_catalog.text, NULL, NULL, NULL
  FROM pg_catalog.pg_cast c
  JOIN own_functions p ON p.oid OPERATOR(pg_catalog.=) c.castfunc
  JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) c.castsource
    OR t.oid OPERATOR(pg_catalog.=) c.casttarget
  JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) t.typnamespace
  WHERE n.nspname OPERATOR(pg_catalog.<>) 'pg_catalog'::pg_catalog.name
    AND NOT EXISTS (SELECT FROM extension_owned x
                    WHERE x.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_cast'::pg_catalog.regclass::pg_catalog.oid
                      AND x.objid OPERATOR(pg_catalog.=) c.oid)
  UNION ALL
  -- Between two types of the system: only what is cast to matters, domains over it included.
  SELECT 'cast_to', n.nspname::pg_catalog.text, t.typname::pg_catalog.text, c.oid::pg_catalog.text, NULL, NULL, NULL
  FROM pg_catalog.pg_cast c
  JOIN own_functions p ON p.oid OPERATOR(pg_catalog.=) c.castfunc
  JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) c.casttarget
    OR t.oid IN (SELECT b.id FROM base b WHERE b.target OPERATOR(pg_catalog.=) c.casttarget)
  JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) t.typnamespace
  WHERE NOT EXISTS (SELECT FROM extension_owned x
                    WHERE x.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_cast'::pg_catalog.regclass::pg_catalog.oid
                      AND x.objid OPERATOR(pg_catalog.=) c.oid)
    AND 2 OPERATOR(pg_catalog.=) (
      SELECT pg_catalog.count(*) FROM pg_catalog.pg_type e
      JOIN pg_catalog.pg_namespace m ON m.oid OPERATOR(pg_catalog.=) e.typnamespace
      WHERE e.oid OPERATOR(pg_catalog.=) ANY (ARRAY[c.castsource, c.casttarget])
        AND m.nspname OPERATOR(pg_catalog.=) 'pg_catalog'::pg_catalog.name)
) AS f
ORDER BY f.kind COLLATE pg_catalog."C", f.a COLLATE pg_catalog."C", f.b COLLATE pg_catalog."C",
         f.c COLLATE pg_catalog."C", f.d COLLATE pg_catalog."C"
