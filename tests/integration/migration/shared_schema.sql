-- The shared tables as a deployment has them: with columns, keys and rows that are not ours to know.
CREATE TABLE public.alembic_version (version_num varchar(32) PRIMARY KEY);
INSERT INTO public.alembic_version VALUES ('f00dfeedcafe');

CREATE TABLE public.users (
  uuid uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  username text NOT NULL,
  password text NOT NULL,
  email text UNIQUE,
  level integer NOT NULL DEFAULT 20,
  active boolean NOT NULL DEFAULT true,
  proxy_uuid uuid NOT NULL DEFAULT gen_random_uuid(),
  proxy_uuid_expires_at timestamptz
);
INSERT INTO public.users (username, password, email) VALUES ('ada', 'x', 'ada@example.com');

CREATE TABLE public.traffic_stat_checkpoints (
  node_id text NOT NULL,
  account_uuid uuid NOT NULL REFERENCES public.users (uuid) ON DELETE CASCADE,
  last_uplink_total bigint NOT NULL DEFAULT 0,
  last_downlink_total bigint NOT NULL DEFAULT 0,
  last_seen_at timestamptz NOT NULL,
  xray_revision text NOT NULL DEFAULT '',
  reset_epoch bigint NOT NULL DEFAULT 0,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (account_uuid, node_id)
);
INSERT INTO public.traffic_stat_checkpoints (node_id, account_uuid, last_seen_at)
  SELECT 'prod:jp-1', uuid, '2026-04-08T12:00:00Z' FROM public.users;

CREATE TABLE public.traffic_minute_buckets (
  bucket_start timestamptz NOT NULL,
  node_id text NOT NULL,
  account_uuid uuid NOT NULL REFERENCES public.users (uuid) ON DELETE CASCADE,
  region text NOT NULL DEFAULT '',
  line_code text NOT NULL DEFAULT '',
  uplink_bytes bigint NOT NULL DEFAULT 0,
  downlink_bytes bigint NOT NULL DEFAULT 0,
  total_bytes bigint NOT NULL DEFAULT 0,
  multiplier double precision NOT NULL DEFAULT 1,
  rating_status text NOT NULL DEFAULT 'pending',
  source_revision text NOT NULL DEFAULT '',
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (bucket_start, node_id, account_uuid, region, line_code)
);

CREATE TABLE public.billing_ledger (
  id uuid PRIMARY KEY,
  account_uuid uuid NOT NULL REFERENCES public.users (uuid) ON DELETE CASCADE,
  bucket_start timestamptz,
  bucket_end timestamptz,
  entry_type text NOT NULL,
  rated_bytes bigint NOT NULL DEFAULT 0,
  amount_delta double precision NOT NULL DEFAULT 0,
  balance_after double precision NOT NULL DEFAULT 0,
  pricing_rule_version text NOT NULL DEFAULT '',
  note text,
  created_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO public.billing_ledger (id, account_uuid, entry_type, amount_delta, note)
  SELECT gen_random_uuid(), uuid, 'top_up', 25, 'card' FROM public.users;

CREATE TABLE public.account_quota_states (
  account_uuid uuid PRIMARY KEY REFERENCES public.users (uuid) ON DELETE CASCADE,
  remaining_included_quota bigint NOT NULL DEFAULT 0,
  current_balance double precision NOT NULL DEFAULT 0,
  arrears boolean NOT NULL DEFAULT false,
  throttle_state text NOT NULL DEFAULT 'normal',
  suspend_state text NOT NULL DEFAULT 'active',
  last_rated_bucket_at timestamptz,
  effective_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  arrears_since timestamptz,
  period_start timestamptz,
  period_end timestamptz
);

CREATE TABLE public.account_billing_profiles (
  account_uuid uuid PRIMARY KEY REFERENCES public.users (uuid) ON DELETE CASCADE,
  package_name text NOT NULL DEFAULT '',
  included_quota_bytes bigint NOT NULL DEFAULT 0,
  base_price_per_byte double precision NOT NULL DEFAULT 0,
  region_multiplier double precision NOT NULL DEFAULT 1,
  line_multiplier double precision NOT NULL DEFAULT 1,
  peak_multiplier double precision NOT NULL DEFAULT 1,
  offpeak_multiplier double precision NOT NULL DEFAULT 1,
  pricing_rule_version text NOT NULL DEFAULT '',
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE public.billing_source_sync_state (
  source_id text PRIMARY KEY,
  last_completed_until timestamptz,
  last_attempted_at timestamptz,
  last_succeeded_at timestamptz,
  last_error text NOT NULL DEFAULT '',
  updated_at timestamptz NOT NULL DEFAULT now()
);
