import pytest

from aurum.platform_settings import PlatformSettings, settings_table
from aurum.runtime.settings import SettingsError, environment_names, load_settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AURUM_API_PORT", "eighty"),
        ("AURUM_API_PORT", "70000"),
        ("AURUM_LOG_LEVEL", "LOUD"),
        ("AURUM_STORE_URL", "mysql://x"),
        ("AURUM_TRACING_OTLP_ENDPOINT", "collector:4317"),
        ("AURUM_RETRY_BASE_DELAY", "99"),
        ("AURUM_ADMIN_TARGETS", "api"),
    ],
)
def test_invalid_setting_is_named(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name):
        load_settings(PlatformSettings)


def test_every_setting_is_documented() -> None:
    table = settings_table()
    for field, info in PlatformSettings.model_fields.items():
        assert environment_names(field)[0] in table
        assert info.description
        assert info.description in table


def test_unprefixed_name_of_new_setting_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_PORT", "1234")
    assert load_settings(PlatformSettings).api_port == 8000
