-- Three roles: the server's superuser does nothing for Maewol; `maewol` owns the book and migrates;
-- `maewol_run` is who charges, and may do what `maewol db upgrade` gives it (docs/security.md).
--
-- Compose runs this when it makes the volume. For a volume of before, again and again if need be:
--   docker compose exec postgres psql -U SUPERUSER -d maewol -f /docker-entrypoint-initdb.d/roles.sql
\set ON_ERROR_STOP on
-- A password must not get into the server's log.
SET log_statement = 'none';
SET log_min_duration_statement = -1;
SET log_min_error_statement = 'panic';
\set owner_password `cat /run/secrets/postgres_owner_password`
\set run_password `cat /run/secrets/postgres_run_password`
SELECT :'owner_password' <> '' AND :'run_password' <> '' AS given \gset
\if :given
\else
    DO $$ BEGIN RAISE 'a password is missing'; END $$;
\endif

SELECT format('CREATE ROLE %I', wanted) FROM unnest('{maewol,maewol_run}'::text[]) AS wanted
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) \gexec
ALTER ROLE maewol LOGIN PASSWORD :'owner_password';
ALTER ROLE maewol_run LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS
    PASSWORD :'run_password';

-- Nobody else connects, and nobody but the owner makes tables.
SELECT format('ALTER DATABASE %I OWNER TO maewol', current_database()) \gexec
SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database()) \gexec
ALTER SCHEMA public OWNER TO maewol;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
