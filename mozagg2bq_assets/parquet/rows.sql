-- How a line of COPY text becomes the values of a row. In these SQL strings a backslash is an ordinary character. In
-- each CASE the usual condition comes first: where it is true of all rows of a vector, DuckDB skips the others.

-- The fields of a line of COPY text.
CREATE MACRO copy_fields(line) AS string_split(line, chr(9));

-- A field's text without COPY's escapes. In jsonb's text only backslashes are escaped; `\N` alone is NULL.
CREATE MACRO copy_text(field) AS replace(nullif(field, '\N'), '\\', '\');

-- Field `number` of a line that must have `width` fields. It holds an array's text, which has no escapes.
CREATE MACRO array_field(fields, width, number) AS
    CASE WHEN len(fields) = width THEN nullif(fields[number], '\N') ELSE error('not that many columns') END;

-- A string as JSON prints it, without its quotes.
CREATE MACRO escaped(string) AS CASE WHEN string IS NOT NULL THEN substr(to_json(string), 2, length(to_json(string)) - 2) END;

-- The values of an object's keys: DuckDB's strings, if a shape reproduced the object's text from them; otherwise those
-- of `exact_dimensions`.
CREATE MACRO dimension_values(object, shape, strings) AS
    CASE WHEN shape >= 0 THEN strings
         WHEN object IS NULL THEN NULL
         ELSE exact_dimensions(object) END;

-- PostgreSQL's text of a bigint[] as JSON. It has letters where it has a NULL, and begins with its bounds where they
-- are not the usual ones.
CREATE MACRO array_json(array_text, array_pattern) AS
    CASE WHEN array_text LIKE '{%}' AND NOT contains(array_text, 'N')
         THEN replace(replace(array_text, '{', '['), '}', ']')
         WHEN array_text IS NULL THEN NULL
         WHEN regexp_full_match(array_text, array_pattern)
         THEN translate(replace(regexp_replace(array_text, '.*=', ''), 'NULL', 'null'), '{}', '[]')
         ELSE error('not an array of bigint') END;
