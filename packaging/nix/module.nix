{
  config,
  lib,
  ...
}:

let
  cfg = config.services.cdigen;
  file = settings: lib.concatStrings (lib.mapAttrsToList (name: value: "${name}=${value}\n") settings);
in
{
  options.services.cdigen = {
    enable = lib.mkEnableOption "cdigen, which keeps the CDI spec of the NVIDIA GPUs up to date";
    package = lib.mkOption {
      type = lib.types.package;
      description = "The package of cdigen.";
    };
    settings = lib.mkOption {
      type = lib.types.attrsOf lib.types.str;
      default = { };
      example.CDIGEN_CAPABILITIES = "compute,utility";
      description = "Variables of /etc/cdigen/cdigen.env.";
    };
    kubernetes = {
      enable = lib.mkEnableOption "the watcher for NVIDIA's Kubernetes device plugin";
      settings = lib.mkOption {
        type = lib.types.attrsOf lib.types.str;
        default = { };
        description = "Variables of /etc/cdigen/k8s-device-plugin.env.";
      };
    };
  };

  config = lib.mkMerge [
    (lib.mkIf (cfg.enable || cfg.kubernetes.enable) {
      environment.systemPackages = [ cfg.package ];
      systemd.packages = [ cfg.package ];
      assertions = [
        {
          assertion = !(config.hardware.nvidia-container-toolkit.enable or false);
          message = "services.cdigen and hardware.nvidia-container-toolkit both write the CDI spec of the NVIDIA GPUs: enable one";
        }
      ];
    })
    (lib.mkIf cfg.enable {
      environment.etc."cdigen/cdigen.env".text = file cfg.settings;
      # NixOS enables units of packages in this way.
      systemd.services.cdigen = {
        wantedBy = [ "multi-user.target" ];
        restartTriggers = [ (file cfg.settings) ];
      };
    })
    (lib.mkIf cfg.kubernetes.enable {
      environment.etc."cdigen/k8s-device-plugin.env".text = file cfg.kubernetes.settings;
      systemd.services."cdigen@k8s-device-plugin" = {
        overrideStrategy = "asDropin";
        wantedBy = [ "multi-user.target" ];
        restartTriggers = [ (file cfg.kubernetes.settings) ];
      };
    })
  ];
}
