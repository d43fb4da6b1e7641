// What the API sends, as far as the console uses it. tests/unit/test_console_types.py compares each interface that names
// a model of the API with that model. The API does not serve this file.

export type MachineStatus = "new" | "running" | "fault" | "stale" | "offline";

/** RulOut */
export interface Rul {
  estimate: number;
  lower: number;
  upper: number;
  unit: string;
}

export interface UnknownReason {
  code: string;
  parameters: Record<string, string>;
}

/** A machine in the event stream. Without a prediction it has no anomaly_score, degraded and predicted_at. */
export interface Machine {
  machine_id: string;
  machine_type: string;
  site: string;
  status: MachineStatus;
  last_seen: string | null;
  risk_score: number | null;
  rul: Rul | null;
  rul_unknown_reason?: string | null;
  rul_unknown?: UnknownReason | null;
  anomaly_score?: number;
  anomaly_threshold?: number | null;
  source?: "model" | "rule";
  rule?: string | null;
  risk_unknown_reason?: string | null;
  risk_unknown?: UnknownReason | null;
  without_skill?: string | null;
  degraded?: boolean;
  predicted_at?: string;
  values: Record<string, number | null>;
}

export interface MachinesEvent {
  machines: Machine[];
  total: number;
  whole: boolean;
}

export interface PulseEvent {
  now: number;
  unreachable: string[];
  gateways?: HangingGateway[];
}

/** A gateway that does not answer since a moment, in ms since 1970. */
export interface HangingGateway {
  name: string;
  since: number;
}

export interface AlarmSummary {
  revision: number;
  loaded: boolean;
  counts: Partial<Record<AlarmState, number>>;
  flood: boolean;
  groups?: number; // active alarms that stand for machines that are silent together
}

/** GroupOut */
export interface AlarmGroup {
  gateway: string | null;
  site: string | null;
  cause: GroupCause | null;
  since: string;
  count: number;
  machines: { machine_id: string; since: string }[];
}

export type GroupCause = "gateway_away" | "gateway_idle" | "gateway_partial" | "site";

export type AlarmState = "normal" | "unacknowledged" | "acknowledged" | "returned" | "shelved" | "suppressed";
export type AlarmPriority = "low" | "medium" | "high" | "urgent";

export type Quantity = "risk" | "rul" | "anomaly" | "sensor" | "rate" | "silence";

/** AlarmOut */
export interface Alarm {
  id: string;
  machine_id: string;
  rule: string;
  text: string;
  priority: AlarmPriority;
  state: AlarmState;
  value: number | null;
  quantity: Quantity;
  sensor: string | null;
  limit: number | null;
  present_value: number | null;
  chatters: boolean;
  raised_at: string | null;
  acknowledged_by: string | null;
  shelved_until: string | null;
  reason: string | null;
  count: number;
  parent: string | null;
  group: AlarmGroup | null;
  site: string;
  line: string;
  comment: string | null;
  commented_by: string | null;
  commented_at: string | null;
}

/** AlarmsOut */
export interface Alarms {
  items: Alarm[];
}

/** AlarmLimitOut */
export interface AlarmLimit {
  rule: string;
  text: string;
  quantity: Quantity;
  sensor: string | null;
  limit: number;
  above: boolean;
}

/** AlarmLimits */
export interface AlarmLimits {
  items: AlarmLimit[];
}

/** ValueLimit */
export interface ValueLimit {
  above: number | null;
  below: number | null;
  deadband: number;
}

export type SensorLimit = ValueLimit & { sensor: string };
export type RateLimit = SensorLimit & { over_seconds: number };
export type AnomalyLimit = ValueLimit & { beyond_threshold: boolean };

/** AlarmRule */
export interface AlarmRule {
  name: string;
  text: string;
  priority: AlarmPriority;
  machine_types: string[];
  risk: ValueLimit | null;
  rul: ValueLimit | null;
  anomaly: AnomalyLimit | null;
  sensor: SensorLimit | null;
  rate: RateLimit | null;
  stale: { after_seconds: number } | null;
  on_delay_seconds: number;
  off_delay_seconds: number;
  suppress_in_fault: boolean;
}

/** RulesOut */
export interface AlarmRules {
  revision: number;
  source: "file" | "stored";
  file_changed: boolean;
  stored_at: string | null;
  by: string | null;
  rules: AlarmRule[];
}

/** The change of a rule between two revisions. */
export interface RuleChange {
  rule: string;
  kind: "added" | "removed" | "changed";
  fields: { field: string; before: unknown; after: unknown }[];
}

/** RevisionOut */
export interface RulesRevision {
  revision: number;
  at: string;
  by: string | null;
  reason: string;
  source: "file" | "stored";
  restores: number | null;
  changes: string[];
  rule_changes: RuleChange[]; // fewer than changes if they are large; none in revisions of earlier versions
  change_count: number;
}

/** RevisionsOut */
export interface RulesRevisions {
  items: RulesRevision[];
  next_cursor: string | null;
}

/** PreviewOut */
export interface RulePreview {
  end: string;
  raised: number;
  machines: number;
  machines_in_all: number;
  machines_with_data: number;
  readings: number;
  data_from: string | null;
  stopped_by: "machines" | "readings" | "time" | null;
  most: { machine_id: string; raised: number; last_at: string }[];
}

/** BulkItemOut */
export interface BulkItem {
  id: string;
  done: boolean;
  changed: boolean;
  problem: string | null;
  detail: string | null;
}

/** OpenAlarmOut */
export interface OpenAlarm {
  gateway: string | null;
  site: string | null;
  id: string;
  machine_id: string;
  text: string;
  priority: AlarmPriority;
  state: AlarmState;
  raised_at: string | null;
}

/** RaisedAlarmOut */
export interface RaisedAlarm {
  gateway: string | null;
  site: string | null;
  machine_id: string;
  text: string;
  priority: AlarmPriority;
  count: number;
}

/** ShelvedAlarmOut */
export interface ShelvedAlarm {
  gateway: string | null;
  site: string | null;
  machine_id: string;
  text: string;
  until: string;
  by: string | null;
  reason: string | null;
}

/** WorstMachineOut */
export interface WorstMachine {
  machine_id: string;
  raised: number;
  open: number;
}

/** HandoverOut */
export interface Handover {
  start: string;
  end: string;
  site: string;
  complete_from: string;
  raised: number;
  cleared: number;
  acknowledged: number;
  open_count: number;
  shelved_count: number;
  comment_count: number;
  open: OpenAlarm[];
  raised_alarms: RaisedAlarm[];
  shelved: ShelvedAlarm[];
  comments: Transition[];
  worst: WorstMachine[];
}

/** FrequencyOut */
export interface Frequency {
  name: string;
  text: string | null;
  count: number;
  share: number;
}

/** AlarmFiguresOut */
export interface AlarmFigures {
  start: string;
  end: string;
  site: string;
  complete_from: string;
  positions: number;
  intervals: number;
  raised: number;
  average_rate: number | null;
  peak_rate: number | null;
  busy_share: number | null;
  flood_share: number | null;
  by_priority: Record<AlarmPriority, number>;
  top_rules: Frequency[];
  top_rules_share: number;
  top_machines: Frequency[];
  top_machines_share: number;
  top_alarms_share: number;
  chattering: string[];
  chattering_count: number;
  stale: string[];
  stale_count: number;
}

/** TransitionOut */
export interface Transition {
  at: string;
  id: string;
  machine_id: string;
  rule: string;
  text: string;
  transition: string;
  by: string | null;
  until: string | null;
  value: number | null;
  reason: string | null;
  parent: string | null;
  gateway: string | null;
  site: string | null;
  cause: GroupCause | null;
  priority: AlarmPriority;
  comment: string | null;
}

/** JournalOut */
export interface Journal {
  items: Transition[];
  next_cursor: string | null;
}

/** SeriesOut */
export interface Series {
  sensor: string;
  timestamps: string[];
  values: (number | null)[];
  minima?: number[] | null;
  maxima?: number[] | null;
}

/** MetricsOut */
export interface Metrics {
  series: Series[];
}

/** PastPredictionOut */
export interface PastPrediction {
  as_of: string | null;
  risk_score: number | null;
  source: "model" | "rule";
  rul: Rul | null;
  degraded: boolean;
}

/** PastPredictionsOut */
export interface PastPredictions {
  items: PastPrediction[];
}

/** FactorOut */
export interface Factor {
  feature: string;
  sensor: string;
  value: number | null;
  contribution: number;
}

/** CauseOut */
export interface Cause {
  mode: string;
  risk: number;
}

/** PredictionOut */
export interface Prediction {
  causes: Cause[];
  trace_id: string;
}

/** ExplanationOut */
export interface Explanation {
  prediction: Prediction;
  factors: Factor[];
  step: number | null;
  step_unit: string | null;
}

/** AdviceOption */
export interface AdviceOption {
  when: string;
  at: string | null;
  after: number | null;
  failure_probability: number;
  money: number;
  kwh: number;
  kgco2e: number;
  litres: number;
}

/** AdviceOut */
export interface Advice {
  unit: string;
  currency: string;
  options: AdviceOption[];
  best: string;
  next_best: string;
  saves: number;
  notes: string[];
}

/** PlannedStopOut */
export interface PlannedStop {
  id: string;
  at: string;
  in_hours: number;
  text: string;
}

/** PlannedStops */
export interface PlannedStops {
  items: PlannedStop[];
}

/** EnergyAmount */
export interface EnergyAmount {
  energy_kwh: number;
  fed_in_kwh: number | null;
  coverage: number;
}

/** EnergyOut */
export interface Energy {
  total: EnergyAmount;
  corrections_count: number;
}

/** CarbonAmount */
export interface CarbonAmount {
  location_kgco2e: number;
  market_kgco2e: number;
}

/** CarbonOut */
export interface Carbon {
  total: CarbonAmount;
  missing_factor_share: number;
}

/** UsedOut */
export interface Used {
  amount: number;
  usual: number | null;
  compared?: number | null;
  left_out?: number;
  reason?: string | null;
}

/** TodayOut */
export interface Today {
  energy_kwh: Used | null;
  carbon_kgco2e: Used | null;
  water_litres: Used | null;
  notes: string[];
}

/** MaintenanceOut */
export interface Maintenance {
  id: string;
  at: string;
  text: string;
  by: string;
  kind: "overhaul" | "replacement" | "repair" | "inspection" | "failure" | null;
  failure_mode: string;
}

/** SensorLevelsOut */
export interface SensorLevels {
  sensor: string;
  begin: number;
  before: number;
  after: number;
}

/** LifeSuggestionOut */
export interface LifeSuggestion {
  stopped_at: string;
  resumed_at: string;
  levels: SensorLevels[];
}

/** LifeSuggestionsOut */
export interface LifeSuggestions {
  sensors_left_out: number;
  items: LifeSuggestion[];
}

/** OutcomeMonth */
export interface OutcomeMonth {
  month: string;
  predictions: number;
  failures: number;
  predicted_failures: number;
  false_warnings: number;
  lead_time: number | null;
  unit: string;
  mean_risk: number | null;
  failure_rate: number | null;
}

/** OutcomesOut */
export interface Outcomes {
  items: OutcomeMonth[];
}

/** MaintenanceRecords */
export interface MaintenanceRecords {
  items: Maintenance[];
}

/** ConsoleOut */
export interface ConsoleSettings {
  version: string;
  environment: string;
  features: Record<string, boolean>;
  faults_enabled: boolean;
  traces_kept: boolean;
  jaeger_url: string | null;
  grafana_url: string | null;
  logs_url: string | null;
  simulation_speed: number | null;
}

/** ModelTrainingOut */
export interface ModelTraining {
  machine_type: string;
  state: string;
  problem: string | null;
}

/** SessionOut */
export interface Session {
  asked: boolean;
  user_id: string | null;
  roles: string[];
  changes?: string[]; // absent from older versions of the API
}

/** ProblemOut */
export interface Problem {
  type: string;
  detail: string;
  parameters?: Record<string, string>;
  errors?: FieldProblem[];
}

export type FieldProblem = { field: string; detail: string; code?: string; parameters?: Record<string, string> };

/** TraceOut */
export interface TraceSummary {
  trace_id: string;
  name: string;
  start: number;
  seconds: number;
  reason: string;
  detail: string;
}

/** TracesOut */
export interface Traces {
  items: TraceSummary[];
}

export interface Span {
  span_id: string;
  parent_id: string | null;
  service: string;
  name: string;
  start: number;
  seconds: number;
  failed: boolean;
  detail: string;
  events: { name: string }[];
}

/** TraceDetail */
export interface Trace extends TraceSummary {
  spans: Span[];
}

export type BreakerState = "open" | "half-open" | "closed" | "disabled";

export interface Limit {
  name: string | null;
  limit: number;
  in_flight: number;
}

export interface Target {
  name: string;
  breaker: BreakerState;
  window: { calls: number; failures: number } | null;
  retry_budget_tokens: number;
  limit: Limit;
}

export interface Rates {
  requests_per_second: number;
  error_ratio: number | null;
  p95_seconds: number | null;
  readings_per_second: number;
  batches_per_second: number;
}

/** A process that answered. */
export interface ReachableInstance {
  reachable: true;
  service: string;
  address: string | null;
  instance: string;
  pid: number;
  uptime_seconds: number;
  rates: Rates | null;
  spool: { batches: number; oldest_seconds: number } | null;
  policy: { generation: number; hash: string };
  refused: { reason: string } | null;
  faults: unknown[];
  missing: string[];
  targets: Target[];
  limits: Limit[];
  inputs?: EdgeInput[];
}

/** How often values were refused or corrected for one reason. */
export interface Tally {
  reason: string;
  count: number;
  example: string;
  last: string;
}

/** A device behind an input of a gateway. */
export interface EdgeDevice {
  source: string;
  quality: number;
  clock_skew_seconds: number;
  seen: string;
  accepted: number;
  readings_per_second: number;
  last: {
    machine: string;
    sensor: string;
    stored_machine: string;
    stored_sensor: string;
    value: number;
    time: string;
  } | null;
  refused: Tally[];
  corrected: Tally[];
}

/** An input of a gateway, with its devices of the lowest quality. */
export interface EdgeInput {
  name: string;
  problem: string | null;
  sources: number;
  worst_quality: number;
  clock_skew_seconds: number;
  accepted: number;
  readings_per_second: number;
  refused: Tally[];
  corrected: Tally[];
  contested?: number;
  losses: string[];
  unusable: { machine: string; sensor: string; problem: string }[];
  worst: EdgeDevice[];
}

/** A process that did not answer, and why. */
export interface UnreachableInstance {
  reachable: false;
  service: string;
  address: string;
  reason: string;
}

export type Instance = ReachableInstance | UnreachableInstance;

/** PlatformOut */
export interface Platform {
  instances: Instance[];
}

/** What a page gets when it is opened. id: The machine of the machine page. */
export interface PageContext {
  id: string;
  console: ConsoleSettings;
}

export interface PageModule {
  /** Shows the page in `main`. Returns a function that ends what the page has started. */
  open(main: HTMLElement, context: PageContext): () => void;
}

export type Child = Node | string | number | null | undefined | Child[];

export interface Properties {
  on?: { [Name in keyof HTMLElementEventMap]?: (event: HTMLElementEventMap[Name]) => unknown };
  [attribute: string]: unknown;
}
