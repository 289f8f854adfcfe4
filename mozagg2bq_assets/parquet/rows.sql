-- How a line of COPY text becomes the values of a row. One backslash escapes nothing in these strings. In each CASE the
-- usual condition comes first: where it is true of all rows of a vector, DuckDB skips the others.

-- The fields of a line of COPY text.
CREATE MACRO copy_fields(line) AS string_split(line, chr(9));

-- A field's text without COPY's escapes. In jsonb's text only backslashes are escaped; `\N` alone is NULL.
CREATE MACRO copy_text(field) AS replace(nullif(field, '\N'), '\\', '\');

-- The second of two fields, which is an array's text and holds no escapes.
CREATE MACRO second_field(fields) AS
    CASE WHEN len(fields) = 2 THEN nullif(fields[2], '\N') ELSE error('not two columns') END;

-- The values of an object's keys. `strings` is what DuckDB finds there, and `printed` how PostgreSQL prints an object of
-- all keys with those strings, if none of them has to be escaped. A text that equals it was understood, whatever it
-- holds: read from the left, no string can end elsewhere. That is cheap to ask, and true of nearly all rows. The pattern
-- of objects that hold strings only is dear, and judges what is left. `exact_dimensions` reads any other object.
CREATE MACRO dimension_values(object, strings, printed, strings_only) AS
    CASE WHEN object = printed THEN strings
         WHEN object IS NULL THEN NULL
         WHEN regexp_full_match(object, strings_only) THEN strings
         ELSE exact_dimensions(object) END;

-- PostgreSQL's text of a bigint[] as JSON. It has letters where it has a NULL, and begins with its bounds where they are
-- not the usual ones.
CREATE MACRO array_json(array_text, array_pattern) AS
    CASE WHEN array_text LIKE '{%}' AND NOT contains(array_text, 'N')
         THEN replace(replace(array_text, '{', '['), '}', ']')
         WHEN array_text IS NULL THEN NULL
         WHEN regexp_full_match(array_text, array_pattern)
         THEN translate(replace(regexp_replace(array_text, '.*=', ''), 'NULL', 'null'), '{}', '[]')
         ELSE error('not an array of bigint') END;
