select
    loader,
    sha256,
    loader || ' ' || sha256 as file_key
from {{ source('staging_files', 'file_in_flight') }}
